// Colours of classes, of other values, and of degrees; the first ten are told apart by most eyes, light and dark.

import { state } from "./state.js";

const SERIES = [
  [36, 104, 180], [224, 107, 45], [22, 140, 104], [150, 90, 200], [205, 155, 20],
  [21, 156, 172], [212, 70, 125], [125, 150, 40], [140, 98, 72], [110, 125, 150],
];
const NONE = [140, 146, 156];

export function classColour(code) {
  if (code < 0) return NONE;
  if (code < SERIES.length) return SERIES[code];
  const hue = (code * 0.618034) % 1, light = 0.45 + 0.15 * (code % 3) / 2;
  return [0, 8, 4].map((k) => {
    const x = (k + hue * 12) % 12;
    return Math.round(255 * (light - 0.55 * Math.min(light, 1 - light) * Math.max(-1, Math.min(x - 3, 9 - x, 1))));
  });
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

export function degree(share) {
  const t = Math.max(0, Math.min(1, share)), low = [90, 110, 150], high = [240, 110, 30];
  return low.map((value, i) => Math.round(value + t * (high[i] - value)));
}

// Colours of all rows: codes of a list of values, or degrees of 0 … 1.
export function paint(codes, degrees) {
  const rgba = new Uint8Array(4 * state.n);
  for (let row = 0; row < state.n; row++) {
    const colour = degrees ? degree(degrees[row]) : classColour(codes ? codes[row] : -1);
    rgba.set(colour, 4 * row);
    const faint = state.shown && !state.shown[row] ? 12 : !degrees && codes && codes[row] < 0 ? 120 : 225;
    rgba[4 * row + 3] = faint;
  }
  return rgba;
}
