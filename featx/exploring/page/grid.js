// The list of images in the panel: only those in sight are elements; walked by arrows, chosen by click, Shift and Ctrl.

import { classColour, css } from "./colours.js";
import { $, make } from "./dom.js";
import { show } from "./sprites.js";
import { choose, className, on, state, tell } from "./state.js";

const grid = $("grid"), spacer = $("spacer"), GAP = 8;
let anchor = -1, layout = { across: 1, side: 96, tall: 96 };

export function list(rows, { why = [], likely = [], note = "" } = {}) {
  state.list = rows;
  state.why = new Map(rows.map((row, i) => [row, why[i]]));
  state.likely = new Map(likely.map((code, i) => [rows[i], code]));
  $("note").textContent = note;
  grid.scrollTop = 0;
  anchor = -1;
  render();
}

function measure() {
  const width = grid.clientWidth - GAP, wish = width < 420 ? 84 : 104;
  const across = Math.max(1, Math.floor(width / (wish + GAP))), side = Math.floor(width / across - GAP);
  const told = state.list.some((row) => state.why.get(row));
  layout = { across, side, tall: side + (told ? 62 : 24) + GAP };
}

export function render() {
  measure();
  const { across, side, tall } = layout;
  spacer.style.height = `${Math.ceil(state.list.length / across) * tall + GAP}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / tall) - 1) * across;
  const last = Math.min(state.list.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / tall) + 1) * across);
  const tiles = [];
  for (let i = first; i < last; i++) tiles.push(tile(state.list[i], i, side, tall));
  spacer.replaceChildren(...tiles);
  grid.setAttribute("aria-activedescendant", state.cursor >= 0 ? `row-${state.cursor}` : "");
}

function tile(row, i, side, tall) {
  const code = state.label[row], guess = state.prediction ? state.prediction[row] : -1;
  const picture = make("div", { className: "picture" });
  picture.style.width = picture.style.height = `${side}px`;
  picture.style.setProperty("--tint", css(classColour(code)));
  show(picture, row, side);
  const name = code >= 0 ? className(code) : guess >= 0 ? `${className(guess)}?` : "no label";
  const text = make("div", { className: code >= 0 ? "label" : "label guess" }, name);
  if (code >= 0) text.style.setProperty("--tint", css(classColour(code)));
  const why = state.why.get(row);
  const chosen = state.chosen.has(row);
  const element = make(
    "div",
    { id: `row-${row}`, className: `tile${chosen ? " chosen" : ""}${row === state.cursor ? " cursor" : ""}` },
    picture, text, why ? make("div", { className: "why", title: why }, why) : null,
  );
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", String(chosen));
  element.setAttribute("aria-label", `${name}${why ? `, ${why}` : ""}`);
  element.dataset.row = row;
  element.dataset.place = i;
  element.style.left = `${GAP + (i % layout.across) * (side + GAP)}px`;
  element.style.top = `${GAP + Math.floor(i / layout.across) * tall}px`;
  element.style.width = `${side}px`;
  return element;
}

function reach(place, { extend = false, toggle = false } = {}) {
  const row = state.list[place];
  if (row === undefined) return;
  if (extend && anchor >= 0) {
    const [low, high] = [Math.min(anchor, place), Math.max(anchor, place)];
    choose(state.list.slice(low, high + 1), row);
  } else if (toggle) {
    const chosen = new Set(state.chosen);
    if (!chosen.delete(row)) chosen.add(row);
    anchor = place;
    choose([...chosen], row);
  } else {
    anchor = place;
    choose([row], row);
  }
  const top = Math.floor(place / layout.across) * layout.tall;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + layout.tall > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + layout.tall - grid.clientHeight + GAP;
  render();
}

const place = () => state.list.indexOf(state.cursor);

// Go to the first row behind these that has no label yet, or simply to the next.
export function goOn(rows) {
  const last = Math.max(...rows.map((row) => state.list.indexOf(row)));
  const behind = state.list.slice(last + 1).findIndex((row) => state.label[row] < 0);
  const next = behind >= 0 ? last + 1 + behind : last + 1;
  if (last >= 0 && next < state.list.length) reach(next);
}

// Arrow keys and the like; true if the key meant something here.
export function walk(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -layout.across, ArrowDown: layout.across };
  const now = place();
  if (event.key in steps && state.list.length) {
    reach(now < 0 ? 0 : Math.max(0, Math.min(state.list.length - 1, now + steps[event.key])), { extend: event.shiftKey });
  } else if (event.key === "Home" || event.key === "End") {
    reach(event.key === "Home" ? 0 : state.list.length - 1, { extend: event.shiftKey });
  } else if (event.key === " " && now >= 0) {
    reach(now, { toggle: true });
  } else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
    choose(state.list, state.cursor);
  } else {
    return false;
  }
  return true;
}

spacer.addEventListener("click", (event) => {
  const element = event.target.closest(".tile");
  if (!element) return;
  grid.focus({ preventScroll: true });
  reach(Number(element.dataset.place), { extend: event.shiftKey, toggle: event.ctrlKey || event.metaKey });
});
spacer.addEventListener("dblclick", (event) => {
  const element = event.target.closest(".tile");
  if (element) tell("alike", Number(element.dataset.row));
});
grid.addEventListener("scroll", render, { passive: true });
new ResizeObserver(render).observe(grid);
for (const event of ["chosen", "labels", "learned"]) on(event, render);
