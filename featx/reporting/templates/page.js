"use strict";
// The page is static HTML; this sorts its tables, fills its images, and answers clicks. It fetches nothing.
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)}\u202f%`);
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Images: each is kept once, and shown wherever its row is.
  const show = (image) => {
    image.onload = () => image.classList.toggle("tiny", image.naturalWidth <= 16);
    image.src = "data:image/jpeg;base64," + data.thumbnails[image.dataset.thumb];
  };
  $$("img[data-thumb]").forEach(show);

  const frame = (row) => {
    const name = data.rows[row][0];
    if (!(row in data.thumbnails)) return make("div", { class: "frame" }, make("span", { class: "missing" }, name));
    const image = make("img", { "data-thumb": row, alt: name, title: name });
    show(image);
    return make("div", { class: "frame" }, image);
  };
  const shot = (row) => {
    const [, truth, predicted, probability] = data.rows[row];
    const caption = make("figcaption");
    if (truth !== null) caption.append(data.classes[truth], make("br"));
    caption.append(
      make("span", { class: truth === null || truth === predicted ? "ok" : "no" }, "→ " + data.classes[predicted]),
      ` ${percent(probability)}`,
    );
    return make("figure", { class: "shot" }, frame(row), caption);
  };

  // Tables: a button in each header sorts by its column.
  $$("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    $$("thead th", table).forEach((header, column) => {
      const button = $("button", header);
      button.addEventListener("click", () => {
        const descending = header.getAttribute("aria-sort") !== "descending";
        const numeric = header.classList.contains("num");
        const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === "" || y === "") return (x === "") - (y === ""); // what is unknown stays at the end
          const order = numeric ? x - y : x.localeCompare(y);
          return descending ? -order : order;
        });
        $$("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        header.setAttribute("aria-sort", descending ? "descending" : "ascending");
        body.append(...rows);
      });
    });
  });

  // Tabs and switches.
  $$("[role=tablist]").forEach((list) => {
    const tabs = $$("[role=tab]", list);
    const choose = (chosen) =>
      tabs.forEach((tab) => {
        tab.setAttribute("aria-selected", tab === chosen);
        tab.tabIndex = tab === chosen ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
      });
    tabs.forEach((tab, i) => {
      tab.addEventListener("click", () => choose(tab));
      tab.addEventListener("keydown", (event) => {
        const last = tabs.length - 1;
        const to = { ArrowRight: i === last ? 0 : i + 1, ArrowLeft: i ? i - 1 : last, Home: 0, End: last }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        choose(tabs[to]);
        tabs[to].focus();
      });
    });
  });
  const onSwitch = (id, action) => {
    const buttons = $$(`#${id} button`);
    buttons.forEach((button) =>
      button.addEventListener("click", () => {
        buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
        action(button.dataset.value);
      }),
    );
  };

  // The confusion matrix: a grid of cells, moved through with the arrow keys.
  const matrix = data.confusion;
  if (matrix) {
    const box = $("#matrix");
    const readout = $("#matrix-readout");
    const names = matrix.indices.map((i) => data.classes[i]);
    const k = names.length;
    box.classList.toggle("dense", k > 20);
    const cells = [];
    const words = (i, j) => {
      const n = matrix.counts[i][j];
      return `${names[i]} → ${names[j]}: ${n.toLocaleString("en")} (${percent(matrix.support[i] ? n / matrix.support[i] : null)} of ${names[i]})`;
    };
    const head = make("tr", {}, make("th", { scope: "col" }, "true \\ predicted"));
    names.forEach((name) => head.append(make("th", { scope: "col", class: "class", title: name }, make("span", {}, name))));
    head.append(make("th", { scope: "col", class: "margin" }, make("abbr", { title: "true-positive rate, recall" }, "TPR")));
    const body = make("tbody");
    names.forEach((name, i) => {
      const line = make("tr", {}, make("th", { scope: "row", title: name }, name));
      cells.push(
        names.map((_, j) => {
          const cell = make("td", { class: "cell", role: "gridcell", tabindex: "-1", "aria-label": words(i, j) });
          cell.classList.toggle("right", i === j);
          cell.classList.toggle("none", !matrix.counts[i][j]);
          cell.dataset.i = i;
          cell.dataset.j = j;
          line.append(cell);
          return cell;
        }),
      );
      line.append(make("td", { class: "margin" }, percent(matrix.recall[i])));
      body.append(line);
    });
    const foot = make("tr", {}, make("th", { scope: "row" }, make("abbr", { title: "false-positive rate" }, "FPR")));
    matrix.false_positive_rate.forEach((rate) => foot.append(make("td", { class: "margin" }, percent(rate))));
    const table = make("table", { role: "grid", "aria-label": "Confusion matrix" });
    table.append(make("thead", {}, head), body, make("tfoot", {}, foot));
    box.append(table);
    cells[0][0].tabIndex = 0;

    const paint = (normalised) => {
      const value = (i, j) => (normalised ? matrix.counts[i][j] / Math.max(1, matrix.support[i]) : matrix.counts[i][j]);
      const most = [0, 0];
      for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) most[+(i === j)] = Math.max(most[+(i === j)], value(i, j));
      for (let i = 0; i < k; i++) {
        for (let j = 0; j < k; j++) {
          const share = Math.sqrt(value(i, j) / (most[+(i === j)] || 1));
          cells[i][j].style.setProperty("--v", share.toFixed(3));
          cells[i][j].textContent = !matrix.counts[i][j] ? "" : normalised ? (100 * value(i, j)).toFixed(1) : value(i, j);
        }
      }
    };
    paint(false);
    onSwitch("matrix-unit", (unit) => paint(unit === "share"));

    const open = (cell) => {
      const [i, j] = [+cell.dataset.i, +cell.dataset.j];
      const n = matrix.counts[i][j];
      if (!n) return;
      $$("[aria-selected]", box).forEach((other) => other.removeAttribute("aria-selected"));
      cell.setAttribute("aria-selected", "true");
      const rows = matrix.cells[`${matrix.indices[i]},${matrix.indices[j]}`] ?? [];
      const kind = i === j ? `${names[i]}, rightly predicted` : `${names[i]} taken for ${names[j]}`;
      const cap = n > rows.length ? ` – the ${rows.length} most confident of ${n.toLocaleString("en")}` : ` – ${n === 1 ? "one image" : "all " + n}`;
      $("#cell-title").textContent = kind + cap;
      $("#cell-shots").replaceChildren(...rows.map(shot));
      $("#cell").hidden = false;
      $("#cell").scrollIntoView({ block: "nearest" });
    };
    const cellOf = (event) => event.target.closest("td.cell");
    table.addEventListener("click", (event) => cellOf(event) && open(cellOf(event)));
    for (const kind of ["mouseover", "focusin"]) {
      table.addEventListener(kind, (event) => {
        const cell = cellOf(event);
        if (cell) readout.textContent = words(+cell.dataset.i, +cell.dataset.j);
      });
    }
    table.addEventListener("keydown", (event) => {
      const cell = cellOf(event);
      if (!cell) return;
      const [i, j] = [+cell.dataset.i, +cell.dataset.j];
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        return open(cell);
      }
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      const next = step && cells[i + step[0]]?.[j + step[1]];
      if (!next) return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }

  // The map: a dot an image, its picture on hover, touch or by the arrow keys.
  const map = data.map;
  if (map) {
    const svg = $("#map svg");
    const tip = $("#map .tip");
    const [width, height, edge] = [800, 600, 24];
    let [method, colouring, lit] = [map.methods[0], "true", -1];
    const order = [];
    let place = [];
    let here = -1;
    let byKey = false;
    const dots = map.rows.map((_, n) => {
      const dot = document.createElementNS(svg.namespaceURI, "circle");
      dot.setAttribute("r", "4.5");
      dot.dataset.n = n;
      svg.append(dot);
      return dot;
    });
    const group = (n, by) => data.rows[map.rows[n]][by === "predicted" ? 2 : 1];
    const wrong = (n) => group(n, "true") !== group(n, "predicted");
    const colour = (n) =>
      `var(--series-${colouring === "wrong" ? (wrong(n) ? 1 : 9) : group(n, colouring) % 10})`;
    const draw = () => {
      place = map.points[method].map(([x, y]) => [edge + x * (width - 2 * edge), edge + (1 - y) * (height - 2 * edge)]);
      order.length = 0; // a method may have placed only the first of the rows
      order.push(...place.keys());
      order.sort((a, b) => place[a][0] - place[b][0]);
      dots.forEach((dot, n) => {
        dot.style.display = n < place.length ? "" : "none";
        if (n >= place.length) return;
        dot.setAttribute("cx", place[n][0].toFixed(1));
        dot.setAttribute("cy", place[n][1].toFixed(1));
        dot.style.fill = colour(n);
        const dim = (lit >= 0 && group(n, colouring) !== lit) || (colouring === "wrong" && !wrong(n) && lit < 0);
        dot.classList.toggle("dim", lit >= 0 && dim);
        dot.style.opacity = colouring === "wrong" && lit < 0 && dim ? 0.3 : "";
      });
      if (colouring === "wrong") svg.append(...dots.filter((_, n) => wrong(n)));
      legend();
    };
    const legend = () => {
      const entry = (style, text) => make("span", {}, Object.assign(make("i"), { style: `background:${style}` }), text);
      const entries =
        colouring === "wrong"
          ? [entry("var(--series-1)", "wrong"), entry("var(--series-9)", "right")]
          : data.classes.length <= 10
            ? data.classes.map((name, i) => entry(`var(--series-${i})`, name))
            : ["Colours repeat after ten classes: choose one class to see it alone."];
      $("#map-legend").replaceChildren(...entries);
    };
    const point = (n) => {
      if (here >= 0) dots[here].classList.remove("here");
      here = n;
      tip.hidden = n < 0;
      if (n < 0) return;
      dots[n].classList.add("here");
      tip.replaceChildren(shot(map.rows[n]));
      const scale = svg.clientWidth / width;
      tip.style.left = `${Math.max(0, Math.min(place[n][0] * scale + 12, svg.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, Math.min(place[n][1] * scale + 12, svg.clientHeight - tip.offsetHeight))}px`;
      const [name, truth, predicted] = data.rows[map.rows[n]];
      $("#map-readout").textContent = `${name}: ${data.classes[truth]}, predicted ${data.classes[predicted]}`;
    };
    const dotOf = (event) => (event.target.dataset.n === undefined ? -1 : +event.target.dataset.n);
    // A page that scrolls under a resting pointer sends "over" and "leave" too, never "move": what a key has shown
    // stays until the pointer really moves.
    for (const kind of ["pointermove", "pointerdown"]) {
      svg.addEventListener(kind, (event) => {
        byKey = false;
        if (dotOf(event) !== here) point(dotOf(event));
      });
    }
    svg.addEventListener("pointerleave", () => byKey || point(-1));
    svg.addEventListener("blur", () => point(-1));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") point(-1);
      if (!step) return;
      event.preventDefault();
      byKey = true;
      const at = here < 0 ? (step > 0 ? -1 : 0) : order.indexOf(here);
      point(order[(at + step + order.length) % order.length]);
    });
    onSwitch("map-method", (value) => ((method = value), point(-1), draw()));
    onSwitch("map-colour", (value) => ((colouring = value), draw()));
    $("#map-class").addEventListener("change", (event) => ((lit = +event.target.value), draw()));
    draw();
  }
})();
