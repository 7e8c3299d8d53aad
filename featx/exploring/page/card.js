// The image that is looked at, large, with what is known of it.

import { ask } from "./api.js";
import { classColour, css } from "./colours.js";
import { $, make, percent } from "./dom.js";
import { className, on, state } from "./state.js";

let shown = -1, asked = 0;

async function show() {
  const row = state.cursor, card = $("card"), mine = ++asked;
  card.hidden = row < 0;
  if (row < 0) return;
  const { rows: [about] } = await ask("rows", { rows: [row] }).catch(() => ({ rows: [{}] }));
  if (mine !== asked) return;
  if (shown !== row) {
    const image = make("img", { alt: about.id || "", src: `api/image/${row}.jpg` });
    image.addEventListener("error", () => image.replaceWith(make("div", { className: "missing" }, "no image")));
    card.replaceChildren(image, make("div", { className: "facts" }));
    shown = row;
  }
  const code = state.label[row];
  const label = make("strong", {}, code < 0 ? "no label" : className(code));
  if (code >= 0) label.style.setProperty("--tint", css(classColour(code)));
  const guesses = (about.top || []).map(([name, p]) => {
    const bar = make("span", { className: "share" });
    bar.style.width = `${100 * p}%`;
    bar.style.background = css(classColour(state.classes.indexOf(name)));
    return make("div", { className: "guess" }, make("span", { className: "name" }, name), make("span", { className: "track" }, bar), make("small", {}, percent(p, 0)));
  });
  const by = about.by ? `${about.by}, ${about.when.slice(0, 16).replace("T", " ")}` : "";
  card.lastChild.replaceChildren(
    make("div", { className: "id", title: about.id || "" }, about.id || ""),
    make("div", { className: "said" }, label, make("small", {}, [about.split, by].filter(Boolean).join(" · "))),
    ...guesses,
  );
}

for (const event of ["chosen", "labels", "learned"]) on(event, show);
