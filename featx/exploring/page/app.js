// Begins: asks what there is, listens to the server, the keys and the menus.

import { ask, changes, numbers } from "./api.js";
import "./card.js";
import { classColour, css, paint } from "./colours.js";
import { $, count, make, percent, toast } from "./dom.js";
import { list, walk } from "./grid.js";
import { keep, label, rowsMeant, showClasses, type, undo } from "./labelling.js";
import * as map from "./map.js";
import { accept, add, currentTab, nextTab, open, searchPhoto } from "./panel.js";
import { choose, on, state, tell } from "./state.js";

const KEYS = [
  ["1 … 9", "give the chosen images that class"], ["letters", "type a class, known or new; Enter takes it"],
  ["0", "take the label away"], ["Ctrl Z", "take back the last labels"],
  ["arrows", "walk; with Shift choose on the way"], ["Space", "choose or leave out"], ["Ctrl A", "choose all in the list"],
  ["+  −", "search for images like, or unlike, the chosen"], ["[  ]", "the tab before, the next tab"],
  ["Enter", "Doubts: take the likely label. Next: more"], ["Backspace", "Doubts: the label is right"],
  ["/", "find by name"], ["Escape", "choose nothing"],
  ["drag, Shift drag", "lasso, move the map (or the other way round)"], ["scroll, double click", "zoom"],
];
let colouring = "label";

function fill(select, pairs) {
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
}

async function begin() {
  const about = await ask("start");
  Object.assign(state, { n: about.n, classes: about.classes, columns: about.columns, revision: about.revision });
  $("title").textContent = about.title;
  $("title").title = `Labels go to ${about.log}, by ${about.by}`;
  document.title = `${about.title} · featx explore`;
  [state.label, state.touched, state.rank] = await Promise.all([numbers("label", Int16Array), numbers("touched", Uint8Array), numbers("rank", Uint32Array)]);
  const names = { principal: "Principal components", learned: "What is learned", umap: "UMAP" };
  fill($("map"), about.maps.map((kind) => [kind, names[kind]]));
  fill($("colour"), [["label", "label"], ["prediction", "prediction"], ["unsure", "how unsure"], ["doubt", "doubt"], ...Object.keys(state.columns).map((name) => [name, name])]);
  const values = Object.entries(state.columns).flatMap(([name, all]) => all.slice(0, 40).map((value, i) => [`column ${i} ${name}`, `${name}: ${value}`]));
  fill($("filter"), [["", "all"], ["without", "without a label"], ["with", "with a label"], ["wrong", "predicted otherwise"], ...values]);
  await map.load("principal");
  await recolour();
  showClasses();
  about.notes.forEach(toast);
  hear({ learned: about.learned, history: about.history });
  await open(state.label.every((code) => code >= 0) ? "doubts" : "next");
  document.body.dataset.ready = "yes";
  listen();
}

async function recolour() {
  const codes = { label: () => state.label, prediction: () => state.prediction };
  const degrees = { unsure: () => state.unsure, doubt: () => state.doubt };
  let used = null, names = state.classes;
  if (colouring in degrees) {
    map.recolour(paint(null, degrees[colouring]() || new Float32Array(state.n)));
    $("legend").replaceChildren(make("span", {}, colouring === "doubt" ? "blue: as labelled · orange: doubtful" : "blue: sure · orange: unsure"));
    return;
  }
  if (colouring in codes) used = codes[colouring]();
  else ({ codes: used, values: names } = await ask("column", { name: colouring }));
  map.recolour(paint(used, null));
  $("legend").replaceChildren(...names.slice(0, 24).map((name, code) => {
    const dot = make("span", { className: "dot" });
    dot.style.background = css(classColour(code));
    return make("span", {}, dot, name);
  }));
}

async function filter() {
  const wish = $("filter").value, shown = new Uint8Array(state.n);
  if (wish.startsWith("column ")) {
    const [, code] = wish.split(" ", 2), { codes } = await ask("column", { name: wish.split(" ").slice(2).join(" ") });
    codes.forEach((one, row) => (shown[row] = one === Number(code)));
  } else {
    for (let row = 0; row < state.n; row++) {
      const labelled = state.label[row] >= 0;
      shown[row] = wish === "without" ? !labelled : wish === "with" ? labelled : labelled && state.prediction && state.prediction[row] !== state.label[row];
    }
  }
  state.shown = wish ? shown : null;
  await recolour();
}

async function hear(news) {
  if (news.classes) state.classes = news.classes;
  (news.rows || []).forEach((row, i) => ([state.label[row], state.touched[row]] = [news.labels[i], Number(news.touched[i])]));
  if (news.rows && news.rows.length) tell("labels");
  state.history = news.history || state.history;
  if (news.learned && "accuracy" in news.learned) {
    state.learned = news.learned;
    [state.prediction, state.unsure, state.doubt] = await Promise.all([numbers("prediction", Int16Array), numbers("unsure", Float32Array), numbers("doubt", Float32Array)]);
    if ($("map").value === "learned") await map.load("learned");
    showAccuracy();
    tell("learned");
  }
  if (state.shown && !$("filter").value.startsWith("column")) await filter();
  else await recolour();
}

function showAccuracy() {
  const { accuracy, n_labelled: n, seconds } = state.learned;
  $("accuracy").textContent = accuracy ? percent(accuracy.value) : "–";
  $("interval").textContent = accuracy ? `${(100 * accuracy.low).toFixed(0)}–${(100 * accuracy.high).toFixed(0)} %` : "label two classes";
  $("score").title = accuracy ? `Accuracy on ${count(accuracy.n)} images ${accuracy.how === "folds" ? "that the heads judging them had not learned from (five folds)" : "of val and test"}; 95 % interval. Learned from ${count(n)} labels in ${seconds} s.` : "";
  $("score").dataset.n = n;
  $("curve").classList.toggle("empty", state.history.length < 2);
  const curve = $("curve"), path = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const most = Math.max(1, ...state.history.map((one) => one.n));
  path.setAttribute("points", state.history.map((one) => `${(2 + (68 * one.n) / most).toFixed(1)},${(22 - 20 * one.value).toFixed(1)}`).join(" "));
  curve.replaceChildren(path);
}

async function listen() {
  for (;;) {
    try {
      const news = await changes(state.revision);
      state.revision = news.revision;
      document.body.classList.remove("lost");
      await hear(news);
    } catch {
      document.body.classList.add("lost");
      await new Promise((wait) => setTimeout(wait, 1500));
    }
  }
}

function pressed(event) {
  if (event.target.matches("input, select, textarea") || $("keys").open) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "z") undo();
  else if (walk(event)) { /* done */ }
  else if (command || event.altKey) return;
  else if (/^[1-9]$/.test(event.key)) {
    const name = state.classes[Number(event.key) - 1];
    if (name !== undefined) label(name);
    else toast(`There is no class ${event.key} yet: type its name.`);
  } else if (event.key === "0") label(null);
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") currentTab() === "doubts" ? accept() : currentTab() === "next" ? open("next") : null;
  else if (event.key === "Backspace") currentTab() === "doubts" ? keep() : null;
  else if (event.key === "+" || event.key === "-") add(event.key === "+" ? "like" : "unlike");
  else if (event.key === "[" || event.key === "]") nextTab(event.key === "[" ? -1 : 1);
  else if (event.key === "/") $("find").focus();
  else if (event.key === "?") help();
  else if (event.key === "Escape") choose([], -1);
  else if (event.key.length === 1 && /\p{L}/u.test(event.key)) type(event.key);
  else return;
  event.preventDefault();
}

function help() {
  $("keys").replaceChildren(
    make("h2", {}, "Keys"),
    make("dl", {}, ...KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)])),
    make("button", { onclick: () => $("keys").close() }, "Close"),
  );
  $("keys").showModal();
}

document.addEventListener("keydown", pressed);
$("undo").addEventListener("click", undo);
$("help").addEventListener("click", help);
$("lasso").addEventListener("click", () => map.setMode("lasso"));
$("move").addEventListener("click", () => map.setMode("move"));
$("colour").addEventListener("change", () => ((colouring = $("colour").value), recolour()));
$("filter").addEventListener("change", filter);
$("map").addEventListener("change", () => map.load($("map").value).catch((error) => {
  toast(error.message);
  $("map").value = "principal";
}));
$("find").addEventListener("keydown", async (event) => {
  if (event.key === "Escape") $("grid").focus();
  if (event.key !== "Enter" || !event.target.value.trim()) return;
  const { rows } = await ask("find", { text: event.target.value.trim() });
  choose(rows);
  await open("chosen");
  list(rows, { note: `${count(rows.length)} with that name.` });
  $("grid").focus();
});
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = false;
});
window.addEventListener("dragleave", (event) => ($("drop").hidden = event.relatedTarget !== null));
window.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  if (event.dataTransfer.files[0]) searchPhoto(event.dataTransfer.files[0]);
});
on("labels", () => recolour());
map.setMode("lasso");
begin().catch((error) => toast(error.message));
