// The server, as functions. Every request goes to the address of the page itself.

const headers = { "x-featx": "1" };

async function answered(response) {
  const data = await response.json();
  if (!response.ok) throw new Error(data.error || `The server says ${response.status}.`);
  return data;
}

export const ask = async (name, body = {}) =>
  answered(await fetch(`api/${name}`, { method: "POST", headers, body: JSON.stringify(body) }));

export const sendPhoto = async (file) => answered(await fetch("api/photo", { method: "POST", headers, body: file }));

export const changes = async (after, wait = 20) => answered(await fetch(`api/changes?after=${after}&wait=${wait}`));

export async function numbers(name, Kind) {
  const response = await fetch(`api/array/${name}`);
  if (!response.ok) throw new Error((await response.json()).error);
  return new Kind(await response.arrayBuffer());
}
