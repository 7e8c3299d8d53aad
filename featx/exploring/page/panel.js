// The tabs beside the map: what is chosen, alike, next, doubtful, twice there, odd; and accuracy by any column.

import { ask, sendPhoto } from "./api.js";
import { $, count, make, percent, toast } from "./dom.js";
import { list } from "./grid.js";
import { keep, label, rowsMeant } from "./labelling.js";
import { choose, on, state } from "./state.js";

const TABS = { chosen: "Chosen", alike: "Similar", next: "Next", doubts: "Doubts", duplicates: "Duplicates", outliers: "Outliers", slices: "Slices" };
const query = { like: [], unlike: [] };
let tab = "next", latest = 0;

const button = (text, onclick, title = "") => make("button", { onclick, title }, text);

const bars = {
  chosen: () => [button("Similar", () => searchFor(rowsMeant())), button("Unlabel", () => label(null), "Key 0")],
  alike: () => [
    button("+ like chosen", () => add("like"), "Key +"), button("− unlike chosen", () => add("unlike"), "Key −"),
    button("Photo…", pickPhoto), button("Clear", () => searchFor([])),
  ],
  next: () => [button("More", () => open("next"), "Key Enter")],
  doubts: () => [button("Accept ⏎", accept, "Take the likely label: key Enter"), button("Keep ⌫", () => keep(), "The label is right: key Backspace")],
  duplicates: () => [nearness()],
  outliers: () => [],
  slices: () => [columnChoice()],
};

const askers = {
  next: () => ask("next", { n: 48 }),
  doubts: () => ask("doubts", { n: 200 }),
  duplicates: () => ask("duplicates", { near: Number(nearness.value || 0.98) }),
  outliers: () => ask("outliers", { n: 200 }),
  alike: () => (query.like.length ? ask("search", { ...query, k: 200 }) : { rows: [], note: "Choose an image and press +, or drop a photo anywhere on this page." }),
};

export const currentTab = () => tab;

export async function open(name) {
  tab = name;
  const mine = ++latest;
  showTabs();
  $("bar").replaceChildren(...bars[name]());
  $("slices").hidden = name !== "slices";
  $("grid").hidden = name === "slices";
  try {
    if (name === "slices") return await showSlices();
    if (name === "chosen") return showChosen();
    $("note").textContent = "…";
    const found = await askers[name]();
    if (mine !== latest) return;
    list(found.rows, { ...found, note: noteOf(name, found) });
    if (found.rows.length && name !== "alike") choose([found.rows[0]], found.rows[0]);
  } catch (error) {
    if (mine === latest) $("note").textContent = "";
    toast(error.message);
  }
}

function noteOf(name, found) {
  if (found.note) return found.note;
  if (name === "next") return "Unsure, and unlike one another: labels of these teach most.";
  if (name === "outliers") return "Least like any other image: other subjects, damage, mistakes.";
  const others = query.unlike.length ? `, unlike ${query.unlike.length}` : "";
  return name === "alike" ? `Most like ${query.like.length} image${query.like.length > 1 ? "s" : ""}${others}.` : "";
}

function showChosen() {
  const rows = [...state.chosen];
  list(rows, { note: rows.length ? `${count(rows.length)} chosen. Press 1 to 9, or type a class.` : "Draw a line around images on the map, or click one." });
}

function showTabs() {
  $("tabs").replaceChildren(
    ...Object.entries(TABS).map(([name, text]) => {
      const one = make("button", { id: `tab-${name}`, onclick: () => open(name) }, text);
      one.setAttribute("role", "tab");
      one.setAttribute("aria-selected", String(name === tab));
      return one;
    }),
  );
  const tabs = $("tabs"), one = $(`tab-${tab}`);
  tabs.scrollLeft = one.offsetLeft - tabs.clientWidth / 2 + one.clientWidth / 2;
}

export function nextTab(step) {
  const names = Object.keys(TABS);
  open(names[(names.indexOf(tab) + step + names.length) % names.length]);
}

export function searchFor(rows) {
  query.like = rows;
  query.unlike = [];
  open("alike");
}

export function add(side) {
  const rows = rowsMeant().filter((row) => !query[side].includes(row));
  query[side] = [...query[side], ...rows];
  const other = side === "like" ? "unlike" : "like";
  query[other] = query[other].filter((row) => !rows.includes(row));
  open("alike");
}

export async function searchPhoto(file) {
  try {
    $("note").textContent = "Reading the photo…";
    searchFor([await sendPhoto(file)]);
  } catch (error) {
    toast(error.message);
  }
}

function pickPhoto() {
  const input = make("input", { type: "file", accept: "image/*" });
  input.addEventListener("change", () => input.files[0] && searchPhoto(input.files[0]));
  input.click();
}

export async function accept() {
  const byName = new Map();
  for (const row of rowsMeant()) {
    const code = state.likely.get(row);
    if (code !== undefined) byName.set(state.classes[code], [...(byName.get(state.classes[code]) || []), row]);
  }
  for (const [name, rows] of byName) await label(name, rows);
}

function nearness() {
  const input = make("input", { type: "range", min: 0.9, max: 1, step: 0.005, value: nearness.value || 0.98 });
  const text = make("output", {}, percent(input.value));
  input.addEventListener("input", () => (text.textContent = percent(input.value)));
  input.addEventListener("change", () => {
    nearness.value = input.value;
    open("duplicates");
  });
  return make("label", {}, "from ", input, text, " alike");
}

function columnChoice() {
  const names = ["label", "prediction", ...Object.keys(state.columns)];
  const select = make("select", { onchange: () => ((columnChoice.wish = select.value), showSlices()) }, ...names.map((name) => make("option", { value: name }, name)));
  select.value = columnChoice.wish || (state.columns.split ? "split" : "label");
  columnChoice.wish = select.value;
  return make("label", {}, "Accuracy by ", select);
}

async function showSlices() {
  const { slices } = await ask("slices", { column: columnChoice.wish });
  $("note").textContent = slices.length ? "Predicted by heads that had not learned from the image. Press a row: what was wrong." : "Nothing is predicted yet: label images of two classes.";
  $("slices").replaceChildren(
    ...slices.map((one) => {
      const bar = make("span", { className: "share" }), range = make("span", { className: "range" });
      bar.style.width = `${100 * one.accuracy}%`;
      range.style.left = `${100 * one.low}%`;
      range.style.width = `${100 * (one.high - one.low)}%`;
      return make(
        "button",
        { className: "slice", onclick: () => showWrong(one) },
        make("span", { className: "value" }, one.value), make("span", { className: "track" }, bar, range),
        make("strong", {}, percent(one.accuracy)), make("small", {}, `${count(one.n)} images`),
      );
    }),
  );
}

async function showWrong(one) {
  await open("chosen");
  choose(one.wrong);
  list(one.wrong, { note: `${count(one.wrong.length)} of ${count(one.n)} in ${one.value} are predicted wrongly.` });
}

on("lassoed", (rows) => {
  choose(rows);
  open("chosen");
});
on("clicked", (row) => {
  choose([row], row);
  if (tab === "chosen" || tab === "slices") open("chosen");
});
on("alike", (row) => searchFor([row]));
on("kept", (rows) => {
  if (tab !== "doubts") return;
  const left = state.list.filter((row) => !rows.includes(row));
  list(left, { why: left.map((row) => state.why.get(row)), likely: left.map((row) => state.likely.get(row)) });
});
