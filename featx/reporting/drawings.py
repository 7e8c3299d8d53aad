"""The pictures of a report: drawn once, shown inline in the page and written as PNG and SVG for papers."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
from markupsafe import Markup

from featx import plots
from featx.comparison import WAYS, lines_over_shots, names_of
from featx.files import whole_file
from featx.model import FitReport
from featx.plots.style import INK, MUTED, RULE, SERIES
from featx.reporting.board import accuracy_of
from featx.reporting.choice import N_PREDICTIONS, confidences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featx.attribution import Saliency
    from featx.evaluation import Evaluation
    from featx.reporting.findings import Findings, TableFindings

#: Dots per inch of the PNG files.
_DPI = 200
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
#: Colours of the plots → variables of the page, which have other values in dark mode.
_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)
}
_COLOUR = re.compile("|".join(_COLOURS))
_FONT = re.compile(r"font-family:[^;]*;?\s*")
#: What matplotlib sets for the whole document with a style element.
_LINES = "stroke-linejoin:round;stroke-linecap:butt"


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Attributes
    ----------
    name : str
        Of its files, and by which the page asks for it.
    alt : str
        What is to be seen, for those who cannot.
    size : tuple of float
        Width and height in inches.
    draw : callable
        Draws on an Axes.
    """

    name: str
    alt: str
    size: tuple[float, float]
    draw: Callable[[Axes], Any]

    def figure(self) -> Figure:
        """Return the drawn figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=self.size)
        self.draw(figure.subplots())
        return figure

    def inline(self) -> Markup:
        """Return the picture as an ``<svg>`` element for a page."""
        file = io.BytesIO()
        # Text stays text: small, searchable, in the colours of the page.
        with plots.styled({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure().savefig(file, format="svg", transparent=True)
        return Markup(_inline_svg(file.getvalue(), label=self.alt, prefix=self.name))  # noqa: S704 - escaped by XML's serialiser

    def save(self, folder: Path) -> list[Path]:
        """Write PNG and SVG into `folder` and return their paths."""
        paths = [folder / f"{self.name}.{kind}" for kind in ("png", "svg")]
        with plots.styled({"svg.hashsalt": self.name}):
            figure = self.figure()
            for path in paths:
                with whole_file(path) as temporary:
                    kind, metadata = path.suffix[1:], {"Date": None} if path.suffix == ".svg" else {}
                    figure.savefig(temporary, format=kind, dpi=_DPI, metadata=metadata)
        return paths


def drawings(findings: Findings) -> list[Drawing]:
    """Return all pictures of `findings`."""
    found = [*_of_board(findings), *_of_curves(findings)]
    if findings.on_table is not None:
        found += [*_of_evaluation(findings.on_table), *_of_data(findings.on_table), *_of_images(findings.on_table)]
    return found


def bars_size(n: int) -> tuple[float, float]:
    """Return width and height in inches of `n` bars below one another, many of them thinner."""
    return 6.4, 1.0 + n * (0.24 if n <= 30 else 0.11)


def _of_board(findings: Findings) -> Iterator[Drawing]:
    rows = [
        {"name": name, "kind": WAYS.get(row.get("kind", ""), ""), "accuracy": accuracy_of(row), "ci95": row["ci95"]}
        for row, name in zip(findings.rows, names_of(findings.rows), strict=True)
        if accuracy_of(row) is not None and row.get("ci95")
    ]
    ways = list(WAYS.values())  # in one order, and so in one colour each, here and over training images
    rows.sort(key=lambda row: ways.index(row["kind"]) if row["kind"] in ways else len(ways))
    if len(rows) > 1:
        size = (7.2, 1.1 + 0.26 * len(rows))
        alt = f"Accuracy of {len(rows)} classifiers with 95 % intervals, best first."
        yield Drawing("leaderboard", alt, size, lambda ax: plots.plot_leaderboard(rows, ax=ax))
    lines = lines_over_shots(findings.rows)
    if any(len(line["images_per_class"]) > 1 for line in lines):
        alt = f"Accuracy against training images a class: {', '.join(line['name'] for line in lines)}."
        yield Drawing("shots", alt, (6.4, 3.8), lambda ax: plots.plot_shots(lines, ax=ax))


def _of_curves(findings: Findings) -> Iterator[Drawing]:
    report = findings.model.report if findings.model else FitReport()
    yield from _curves("", report.history, "epoch")
    yield from _curves("", report.iterations, "iteration")
    for i, row in enumerate(findings.rows):
        if row.get("history") == report.history:  # drawn already
            continue
        yield from _curves(f"row-{i}-", row.get("history") or {}, "epoch")


def _curves(prefix: str, history: Mapping[str, Sequence[float]], unit: str) -> Iterator[Drawing]:
    for metric in ("loss", "accuracy"):
        values, validated = history.get(metric), history.get(f"val_{metric}")
        if values or validated:
            last = ", ".join(
                f"{name} {column[-1]:.3g}" for name, column in (("train", values), ("validation", validated)) if column
            )
            alt = f"{metric.capitalize()} over {unit}s; at the end: {last}."

            def draw(ax: Axes, metric: str = metric) -> Axes:
                return plots.plot_history(history, metric, ax=ax)

            yield Drawing(f"{prefix}{metric}-{unit}", alt, (4.8, 3.0), draw)


def _of_evaluation(on_table: TableFindings) -> Iterator[Drawing]:
    found = on_table.evaluation
    side = min(14.0, 2.6 + 0.42 * len(found.classes) if len(found.classes) <= 26 else 3 + 0.09 * len(found.classes))
    for name, normalize in (("confusion", False), ("confusion-normalized", True)):
        alt = (
            f"Confusion matrix of {len(found.classes)} classes, in {'shares of each class' if normalize else 'images'}."
        )

        def draw(ax: Axes, normalize: bool = normalize) -> Axes:
            return plots.plot_confusion(found.confusion, found.classes, normalize=normalize, ax=ax)

        yield Drawing(name, alt, (side, side), draw)
    alt = "Precision, recall and F1 of each class."
    size = bars_size(len(found.classes))
    yield Drawing("class-scores", alt, size, lambda ax: plots.plot_class_scores(found.per_class, ax=ax))
    if found.reliability:
        alt = f"Share of right answers by confidence; expected calibration error {found.calibration_error:.3f}."
        yield Drawing("reliability", alt, (4.8, 3.6), lambda ax: plots.plot_reliability(found.reliability, ax=ax))
    sizes = on_table.sizes
    if sizes.n:
        ends = f"{sizes.accuracies[0].value:.1%} with {sizes.n[0]:,}, {found.accuracy.value:.1%} with all"
        alt = f"Accuracy against the number of training images: {ends}."
        yield Drawing(
            "training-size", alt, (4.8, 3.2), lambda ax: plots.plot_training_size(sizes.n, sizes.accuracies, ax=ax)
        )


def _of_data(on_table: TableFindings) -> Iterator[Drawing]:
    table, classes = on_table.table, on_table.table.classes
    counts = {
        split: np.bincount(table.y[(table.splits == split) & (table.y >= 0)], minlength=len(classes)).tolist()
        for split in sorted(set(table.splits.tolist()), key=lambda s: ("train", "val", "test", s).index(s))
    }
    alt = f"Images of each of {len(classes)} classes" + (f", by split: {', '.join(counts)}." if any(counts) else ".")
    yield Drawing("classes", alt, bars_size(len(classes)), lambda ax: plots.plot_class_counts(counts, classes, ax=ax))
    y = on_table.evaluation.y_true[on_table.choice.on_map]
    for method, points in on_table.maps.items():

        def draw(ax: Axes, points: Any = points) -> Axes:
            return plots.plot_map(points, y[: len(points)], on_table.evaluation.classes, ax=ax)

        alt = f"{method} of the features of {len(points):,} images, coloured by true class."
        yield Drawing(f"map-{method.lower()}", alt, (6.4, 4.8), draw)


def _of_images(on_table: TableFindings) -> Iterator[Drawing]:
    choice, table, found = on_table.choice, on_table.table, on_table.evaluation
    wrong = found.y_true != found.y_pred
    for name, chosen in (("predictions", choice.predictions), ("mistakes", choice.mistakes[:N_PREDICTIONS])):
        rows = [row for row in chosen if on_table.positions([row])[0] in on_table.thumbnails]
        captions = _predicted(found, rows)
        yield from _image_grid(name, on_table, on_table.positions(rows), captions, wrong[rows].tolist())
    rows = [row for row in on_table.samples if row in on_table.thumbnails]
    yield from _image_grid("samples", on_table, rows, [table.classes[table.y[row]] for row in rows], [])
    if on_table.seen is not None and on_table.seen[0]:
        yield _of_saliency(*on_table.seen, found)


def _of_saliency(rows: list[int], seen: Saliency, found: Evaluation) -> Drawing:
    def draw(ax: Axes) -> Axes:
        wrong = (found.y_true != found.y_pred)[rows].tolist()
        return plots.plot_saliency(seen, _predicted(found, rows), wrong=wrong, columns=3, ax=ax)

    alt = f"{len(rows)} images, and beside each the places that speak for what is predicted, the others dim and grey."
    return Drawing("saliency", alt, (7.5, 1.6 * -(-len(rows) // 3)), draw)


def _predicted(found: Evaluation, rows: Sequence[int]) -> list[str]:
    """Return what stands under an image: its class, what was predicted, and how sure."""
    confidence = confidences(found)
    return [
        f"{found.classes[found.y_true[row]]}\n→ {found.classes[found.y_pred[row]]} {100 * confidence[row]:.0f} %"
        for row in rows
    ]


def _image_grid(
    name: str, on_table: TableFindings, positions: Sequence[int], captions: Sequence[str], wrong: Sequence[bool]
) -> Iterator[Drawing]:
    from PIL import Image

    if not positions:
        return
    columns = 4 if len(positions) <= N_PREDICTIONS else 8

    def draw(ax: Axes) -> Axes:
        images = [Image.open(io.BytesIO(on_table.thumbnails[position])) for position in positions]
        return plots.plot_images(images, captions, wrong=wrong, columns=columns, ax=ax)

    size = (1.25 * columns, 1.25 * 1.3 * -(-len(positions) // columns))
    yield Drawing(name, f"{len(positions)} images ({name}) with their classes.", size, draw)


# matplotlib's SVG made fit to stand inside a page: no reference leaves it, no style leaks, colours are the page's


def _inline_svg(document: bytes, *, label: str, prefix: str) -> str:
    """Turn an SVG file of matplotlib into an ``<svg>`` element.

    Parameters
    ----------
    document : bytes
        The file, with text as text.
    label : str
        What is to be seen, for screen readers.
    prefix : str
        Makes ids unique among all pictures of a page.

    Returns
    -------
    str
        The element, without clip paths, style elements, metadata, namespaces or fixed size.
    """
    # The document is our own, written a moment ago.
    root = ET.fromstring(document)  # noqa: S314
    _drop(root, {"metadata", "style", "clipPath"})
    used = {element.attrib[_HREF].removeprefix("#") for element in root.iter() if _HREF in element.attrib}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(_attributes(element, used, prefix))
        element.tail = None
        element.text = element.text if element.tag in ("text", "tspan") else None
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, "style": _LINES}
    return ET.tostring(root, encoding="unicode")


def _drop(root: ET.Element, names: set[str]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.removeprefix(_SVG) in names:
                parent.remove(child)
        if parent.tag == f"{_SVG}defs" and not len(parent):
            parent.tag = f"{_SVG}g"


def _attributes(element: ET.Element, used: set[str], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name == _HREF:
            yield "href", f"#{prefix}-{value.removeprefix('#')}"
        elif name == "id":
            if value in used:
                yield "id", f"{prefix}-{value}"
        elif name != "clip-path":
            text = _COLOUR.sub(lambda match: _COLOURS[match.group()], value)
            yield name, _FONT.sub("", text)
