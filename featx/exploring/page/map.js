// The map: moved, zoomed and lassoed by mouse, touch and keys; pictures in place of dots where there is room.

import { numbers } from "./api.js";
import { classColour, css } from "./colours.js";
import { $ } from "./dom.js";
import { Points } from "./points.js";
import { draw as drawPicture } from "./sprites.js";
import { choose, on, state, tell } from "./state.js";

const MOST_PICTURES = 900, CLICK = 5;
const overlay = $("overlay"), context = overlay.getContext("2d");
const points = new Points($("points"));
const view = { scale: 1, x: 0, y: 0 };
let places = null, ratio = 1, line = null, waiting = false, mode = "lasso", target = null;
const fingers = new Map();

export async function load(kind) {
  const found = await numbers(`map-${kind}`, Float32Array);
  const old = places;
  places = found;
  if (!old) fit();
  points.places(places);
  redraw();
}

export function recolour(rgba) {
  points.colours(rgba);
  redraw();
}

export function setMode(name) {
  mode = name;
  for (const id of ["lasso", "move"]) $(id).setAttribute("aria-pressed", String(id === name));
  overlay.dataset.mode = name;
}

export function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    paint();
  });
}

function fit() {
  view.scale = 0.46 * Math.min(overlay.width, overlay.height * 0.92);
  view.x = overlay.width / 2;
  view.y = overlay.height / 2 + 12 * ratio;
}

function resize() {
  const box = overlay.getBoundingClientRect();
  ratio = window.devicePixelRatio || 1;
  for (const canvas of [overlay, points.canvas]) {
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
  }
  fit();
  redraw();
}

const at = (row) => [places[2 * row] * view.scale + view.x, places[2 * row + 1] * view.scale + view.y];
const visible = (row) => !state.shown || state.shown[row];

function seen(most) {
  const rows = [], margin = 40 * ratio;
  for (let row = 0; row < state.n; row++) {
    const [x, y] = at(row);
    if (x > -margin && y > -margin && x < overlay.width + margin && y < overlay.height + margin && visible(row)) {
      rows.push(row);
      if (rows.length > most) return null;
    }
  }
  return rows;
}

function paint() {
  if (!places) return;
  const rows = seen(MOST_PICTURES);
  const dot = Math.max(3, Math.min(11, 3 + 0.7 * Math.log2(view.scale / overlay.height * 4 + 1) + 300 / Math.sqrt(state.n) / 6));
  points.draw(view, dot * ratio, false);
  context.clearRect(0, 0, overlay.width, overlay.height);
  if (rows && rows.length) paintPictures(rows);
  paintChosen(dot * ratio);
  if (line) paintLine();
}

function paintPictures(rows) {
  const room = Math.sqrt((overlay.width * overlay.height) / rows.length);
  const size = Math.max(16 * ratio, Math.min(84 * ratio, 0.62 * room));
  context.lineWidth = Math.max(2, size / 18);
  for (const row of rows) {
    const [x, y] = at(row);
    if (!drawPicture(context, row, x - size / 2, y - size / 2, size, redraw)) continue;
    context.strokeStyle = css(classColour(state.label[row]));
    context.strokeRect(x - size / 2, y - size / 2, size, size);
  }
}

function paintChosen(size) {
  context.strokeStyle = getComputedStyle(document.body).color;
  context.lineWidth = 1.5 * ratio;
  let left = 4000;
  for (const row of state.chosen) {
    if (!left--) break;
    const [x, y] = at(row);
    context.beginPath();
    context.arc(x, y, size * 0.8, 0, 7);
    context.stroke();
  }
  if (state.cursor < 0) return;
  const [x, y] = at(state.cursor);
  context.lineWidth = 3 * ratio;
  context.beginPath();
  context.arc(x, y, Math.max(9 * ratio, size), 0, 7);
  context.stroke();
}

function paintLine() {
  context.beginPath();
  for (const [x, y] of line) context.lineTo(x, y);
  context.closePath();
  context.fillStyle = "rgb(36 104 180 / .14)";
  context.strokeStyle = "rgb(36 104 180)";
  context.lineWidth = 2 * ratio;
  context.fill();
  context.stroke();
}

function inside(polygon) {
  const rows = [];
  for (let row = 0; row < state.n; row++) {
    if (!visible(row)) continue;
    const [x, y] = at(row);
    let odd = false;
    for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
      const [xi, yi] = polygon[i], [xj, yj] = polygon[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    if (odd) rows.push(row);
  }
  return rows;
}

function nearest(x, y) {
  let best = -1, least = (34 * ratio) ** 2;
  for (let row = 0; row < state.n; row++) {
    if (!visible(row)) continue;
    const [px, py] = at(row), d = (px - x) ** 2 + (py - y) ** 2;
    if (d < least) [best, least] = [row, d];
  }
  return best;
}

export function zoom(factor, x = overlay.width / 2, y = overlay.height / 2) {
  const scale = Math.max(40, Math.min(3e5, view.scale * factor)), real = scale / view.scale;
  view.x = x + (view.x - x) * real;
  view.y = y + (view.y - y) * real;
  view.scale = scale;
  redraw();
}

const spot = (event) => {
  const box = overlay.getBoundingClientRect();
  return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
};

overlay.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...spot(event));
}, { passive: false });

overlay.addEventListener("pointerdown", (event) => {
  if (event.button > 1) return;
  overlay.focus();
  overlay.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, spot(event));
  target = spot(event);
  const lassoes = (mode === "lasso") !== event.shiftKey && event.button === 0;
  line = lassoes && fingers.size === 1 ? [spot(event)] : null;
});

overlay.addEventListener("pointermove", (event) => {
  const old = fingers.get(event.pointerId), now = spot(event);
  if (!old) return;
  if (fingers.size === 2) {
    const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const before = Math.hypot(old[0] - other[0], old[1] - other[1]), after = Math.hypot(now[0] - other[0], now[1] - other[1]);
    zoom(after / Math.max(1, before), ...other);
    line = null;
  } else if (line) {
    line.push(now);
    redraw();
  } else {
    view.x += now[0] - old[0];
    view.y += now[1] - old[1];
    redraw();
  }
  fingers.set(event.pointerId, now);
});

function lift(event) {
  if (!fingers.delete(event.pointerId) || fingers.size) return;
  const [x, y] = spot(event), moved = target ? Math.hypot(x - target[0], y - target[1]) : 0;
  const drawn = line;
  line = null;
  if (event.type === "pointercancel") return redraw();
  if (drawn && drawn.length > 3 && Math.max(...drawn.map((p) => Math.hypot(p[0] - target[0], p[1] - target[1]))) > CLICK * ratio) {
    tell("lassoed", inside(drawn));
  } else if (moved <= CLICK * ratio) {
    const row = nearest(x, y);
    if (row >= 0) tell("clicked", row);
    else choose([]);
  }
  redraw();
}
overlay.addEventListener("pointerup", lift);
overlay.addEventListener("pointercancel", lift);
overlay.addEventListener("dblclick", (event) => zoom(2.5, ...spot(event)));

new ResizeObserver(resize).observe(overlay);
for (const event of ["chosen", "labels", "learned"]) on(event, redraw);
