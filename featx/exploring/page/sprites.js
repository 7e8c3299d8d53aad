// Small pictures: 16 × 16 on a page, loaded when first seen, the pages used last kept.

import { state } from "./state.js";

const ACROSS = 16, SIDE = 80, KEPT = 40;
const pages = new Map();

export const address = (row) => `api/page/${state.rank[row] >> 8}.jpg`;

// Let an element show a row's picture as its background, `size` pixels wide.
export function show(element, row, size) {
  const cell = state.rank[row] & 255, scale = size / SIDE;
  element.style.backgroundImage = `url("${address(row)}")`;
  element.style.backgroundSize = `${ACROSS * SIDE * scale}px`;
  element.style.backgroundPosition = `${-(cell % ACROSS) * size}px ${-Math.floor(cell / ACROSS) * size}px`;
}

// Draw a row's picture if its page is there; else ask for it, and call `later` when it has come.
export function draw(context, row, x, y, size, later) {
  const number = state.rank[row] >> 8, cell = state.rank[row] & 255;
  let page = pages.get(number);
  if (!page) {
    page = new Image();
    page.addEventListener("load", later);
    page.src = address(row);
  }
  pages.delete(number);
  pages.set(number, page); // now the youngest
  if (pages.size > KEPT) pages.delete(pages.keys().next().value);
  if (!page.complete || !page.naturalWidth) return false;
  context.drawImage(page, (cell % ACROSS) * SIDE, Math.floor(cell / ACROSS) * SIDE, SIDE, SIDE, x, y, size, size);
  return true;
}
