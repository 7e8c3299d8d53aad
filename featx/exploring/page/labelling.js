// Labels: keys 1 to 9, names typed ahead, many at once, undone; and the classes with how many each has.

import { ask } from "./api.js";
import { classColour, css } from "./colours.js";
import { $, count, make, toast } from "./dom.js";
import { goOn } from "./grid.js";
import { on, state, tell } from "./state.js";

const field = $("name"), guesses = $("guesses");
let marked = 0;

export const rowsMeant = () => (state.chosen.size ? [...state.chosen] : state.cursor >= 0 ? [state.cursor] : []);

export async function label(name, rows = rowsMeant()) {
  if (!rows.length) return toast("Choose images first: click one, or draw a line around many.");
  try {
    const done = await ask("label", { rows, label: name });
    let code = name === null ? -1 : state.classes.indexOf(name);
    if (code < 0 && name !== null) code = state.classes.push(name) - 1;
    for (const row of done.rows) [state.label[row], state.touched[row]] = [code, 1];
    tell("labels");
    goOn(rows);
  } catch (error) {
    toast(error.message);
  }
}

export async function undo() {
  try {
    const { undone } = await ask("undo");
    if (!undone) toast("There is nothing of yours to take back.");
  } catch (error) {
    toast(error.message);
  }
}

export async function keep(rows = rowsMeant()) {
  try {
    await ask("keep", { rows });
    tell("kept", rows);
    goOn(rows);
  } catch (error) {
    toast(error.message);
  }
}

export function type(first) {
  field.focus();
  field.value = first;
  suggest();
}

function matches() {
  const text = field.value.trim().toLowerCase();
  const known = state.classes.filter((name) => name.toLowerCase().includes(text));
  known.sort((a, b) => Number(b.toLowerCase().startsWith(text)) - Number(a.toLowerCase().startsWith(text)));
  const isNew = text && !state.classes.some((name) => name.toLowerCase() === text);
  return [...known.slice(0, 8).map((name) => [name, name]), ...(isNew ? [[field.value.trim(), `New class: ${field.value.trim()}`]] : [])];
}

function suggest() {
  const found = field.value.trim() ? matches() : [];
  marked = Math.min(marked, Math.max(0, found.length - 1));
  guesses.hidden = !found.length;
  guesses.replaceChildren(
    ...found.map(([name, text], i) => {
      const item = make("li", { className: i === marked ? "marked" : "", onmousedown: (event) => (event.preventDefault(), take(name)) }, text);
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(i === marked));
      return item;
    }),
  );
}

function take(name) {
  field.value = "";
  suggest();
  $("grid").focus({ preventScroll: true });
  label(name);
}

field.addEventListener("input", () => {
  marked = 0;
  suggest();
});
field.addEventListener("keydown", (event) => {
  const found = matches();
  if (event.key === "Enter" && field.value.trim()) take(found[marked][0]);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    marked = (marked + (event.key === "ArrowDown" ? 1 : found.length - 1)) % Math.max(1, found.length);
    suggest();
  } else if (event.key === "Escape") {
    field.value = "";
    suggest();
    $("grid").focus();
  } else return;
  event.preventDefault();
});
field.addEventListener("blur", () => (guesses.hidden = true));

export function showClasses() {
  const n = new Array(state.classes.length).fill(0);
  for (const code of state.label) if (code >= 0) n[code]++;
  $("classes").replaceChildren(
    ...state.classes.map((name, code) => {
      const dot = make("span", { className: "dot" });
      dot.style.background = css(classColour(code));
      const key = code < 9 ? make("kbd", {}, String(code + 1)) : null;
      return make("button", { title: `Label the chosen images ${name}`, onclick: () => label(name) }, key, dot, make("span", { className: "class" }, name), make("small", {}, count(n[code])));
    }),
  );
  const labelled = n.reduce((sum, one) => sum + one, 0);
  $("count").textContent = `${count(labelled)} of ${count(state.n)} labelled`;
}
on("labels", showClasses);
