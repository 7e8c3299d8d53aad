// What this window knows of the table, and who wants to hear of changes.

export const state = {
  n: 0, classes: [], columns: {}, revision: 0, nLabelled: 0, history: [], learned: {},
  label: new Int16Array(), touched: new Uint8Array(), prediction: null, unsure: null, doubt: null, rank: null,
  list: [], why: new Map(), likely: new Map(), // rows in the panel, and what is said of each
  chosen: new Set(), cursor: -1, // rows that a key labels, and the one that is looked at
  shown: null, // Uint8Array of rows that pass the filter, or null for all
};

const listeners = new Map();

export function on(event, listener) {
  if (!listeners.has(event)) listeners.set(event, []);
  listeners.get(event).push(listener);
}

export function tell(event, detail) {
  for (const listener of listeners.get(event) || []) listener(detail);
}

export function choose(rows, cursor) {
  state.chosen = new Set(rows);
  if (cursor !== undefined) state.cursor = cursor;
  else if (!state.chosen.has(state.cursor)) state.cursor = rows.length ? rows[0] : -1;
  tell("chosen");
}

export const className = (code) => (code < 0 ? "" : state.classes[code]);
