"""How right classifiers are, and how long they take: layers, heads, images a class and backbones, on data of your own.

    python examples/bench_accuracy.py photos/ cifar10/ --most 6000 --rows rows.jsonl --picture accuracy.png
    python examples/bench_accuracy.py "houses.csv images=houses/ label_column=room group_column=house" --shots 25,all

Contestants are heads of featx on the last layer and on all stages, `auto`, scikit-learn's classifiers as they come, and
FLAML (an AutoML library that tunes boosted trees, forests and linear models) with the seconds that `auto` has. Data
without a test split get one: three tenths, drawn by content and by group, another for each seed. Validation rows, a
tenth of train whatever the number of images a class, choose; test rows only report. Others than featx are given the
last layer; FLAML gets the validation rows as such. What is in `--rows` already is not computed again.

Expected with the three EfficientNet-Lites on four data sets of 1,500 to 6,000 images: all stages side by side, of which
validation takes those that are worth it, are right more often than the last layer alone by more than a point on
average, and `auto` is as right as the best head.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import shlex
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import featx
from featx.comparison.subsets import keep_shots, with_validation
from featx.datasets import Dataset
from featx.datasets.dataset import select
from featx.datasets.splits import ValidationShare

#: Share of the rows that become the test split of data without one.
TEST_SHARE = 0.3
#: Where scikit-learn's and FLAML's classifiers are, and with what they are made beside their defaults.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sklearn-logistic": ("sklearn.linear_model:LogisticRegression", {}),
    "sklearn-svc": ("sklearn.svm:SVC", {}),
    "sklearn-forest": ("sklearn.ensemble:RandomForestClassifier", {}),
    "sklearn-knn": ("sklearn.neighbors:KNeighborsClassifier", {}),
    "flaml": ("flaml:AutoML", {}),
}
LAYERS = ("default", "stages")
#: How contestants are drawn.
LOOKS = {"auto": ("#c2410c", "*"), "peer": ("#6b7280", "s"), "default": ("#60a5fa", "o"), "stages": ("#1d4ed8", "o")}
PLAIN = ("logreg", "default")

Row = dict[str, Any]
Fit = Callable[..., Any]


def opened(words: str, most: int | None, seed: int) -> Dataset:
    """Open data as typed, a path and options of `featx.open_dataset`, with a test split and at most `most` rows."""
    path, *options = shlex.split(words)
    dataset = featx.open_dataset(path, **dict(option.split("=", 1) for option in options))
    if most is not None and most < len(dataset):
        dataset = select(dataset, np.sort(np.random.default_rng(0).permutation(len(dataset))[:most]))
    if "test" in dataset.given_splits:
        return dataset
    drawn = dataclasses.replace(dataset, validation=ValidationShare.parse(TEST_SHARE, seed)).splits
    splits = np.where(drawn == "val", "test", "train")
    return dataclasses.replace(dataset, given_splits=splits, validation=None)


def tables_of(dataset: Dataset, backbone: str, cache: str) -> dict[str, list[featx.Features]]:
    """Return the tables of the last layer and of all stages."""
    how = {"backbone": backbone, "cache": cache}
    made = {"default": featx.extract(dataset, **how), "stages": featx.extract(dataset, layers="stages", **how)}
    return {name: tables if isinstance(tables, list) else [tables] for name, tables in made.items()}


def contestants(
    heads: Iterable[str], peers: Iterable[str], budget: str
) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield the name, the layers and the fit of each: from tables and a seed to what predicts a table."""
    for head, layers in itertools.product(heads, LAYERS):
        if head != "auto":
            yield head, layers, lambda tables, seed, head=head: featx.fit(tables, head, seed=seed)
        elif layers == "stages":
            yield head, layers, lambda tables, seed: featx.fit(tables, "auto", budget=budget, seed=seed)
    for name in peers:
        yield name, "default", lambda tables, seed, name=name: Peer(name, budget).fit(tables[0], seed)


class Peer:
    """A classifier of another library on a table, as featx's models are."""

    def __init__(self, name: str, budget: str) -> None:
        path, settings = PEERS[name]
        module, _, attribute = path.partition(":")
        self.estimator = getattr(importlib.import_module(module), attribute)(**settings)
        self.name, self.seconds = name, float(budget.rstrip("s"))

    def fit(self, table: featx.Features, seed: int) -> Peer:
        """Fit on the training rows."""
        X, y = table.split("train")
        if "random_state" in self.estimator.get_params():
            self.estimator.set_params(random_state=seed)
        how = {}
        if self.name == "flaml":
            X_val, y_val = table.split("val")
            how = {"X_val": X_val, "y_val": y_val, "time_budget": self.seconds, "task": "classification", "verbose": 0}
            how |= {"seed": seed, "n_jobs": 1, "metric": "log_loss"}
        self.estimator.fit(X, y, **how)
        return self

    def codes(self, table: featx.Features) -> np.ndarray:
        """Return the predicted class of each row."""
        return np.asarray(self.estimator.predict(table.X)).astype(int)


def codes_of(model: Any, tables: list[featx.Features]) -> np.ndarray:
    """Return the predicted class of each row, as a number of the tables' classes."""
    if isinstance(model, Peer):
        return model.codes(tables[0])
    place = {name: number for number, name in enumerate(tables[0].classes)}
    return np.array([place[name] for name in model.predict(tables)])


def rows(args: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[Row]:
    """Yield a row for each data set, seed, backbone, number of images a class and contestant that is not done."""
    peers = [name for name in args.peers.split(",") if name]
    heads = [name for name in args.heads.split(",") if name]
    for seed, words, backbone in itertools.product(range(args.seeds), args.data, args.backbones.split(",")):
        dataset, data = with_validation(opened(words, args.most, seed), seed=seed), name_of(words)
        todo = [
            (shots, contestant)
            for shots in args.shots.split(",")
            for contestant in contestants(heads, peers, args.budget)
            if (data, seed, backbone, shots, *contestant[:2]) not in done
        ]
        tables = tables_of(dataset, backbone, args.cache) if todo else {}
        for shots, (name, layers, fit) in todo:
            kept = keep_shots(dataset, None if shots == "all" else int(shots), seed=seed)
            mine = [table.select(np.isin(table.ids, kept.ids)) for table in tables[layers]]
            test = [table.select("test") for table in mine]
            started, cpu_started = time.perf_counter(), time.process_time()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that an optimiser of scikit-learn's has not converged
                    model = fit(mine, seed)
                    took = {"seconds": time.perf_counter() - started, "processor": time.process_time() - cpu_started}
                    right = codes_of(model, test) == test[0].y
            except ValueError as error:  # five neighbours of three rows
                print(f"{data}, {shots} images a class, {name}: {error}", file=sys.stderr)
                continue
            asked = {"data": data, "seed": seed, "backbone": backbone, "shots": shots, "head": name, "layers": layers}
            told = {"n_train": int((mine[0].splits == "train").sum()), "n_test": len(right)}
            yield asked | {"accuracy": float(right.mean()), **took, **told}


def name_of(words: str) -> str:
    """Return what data are called in the table: the folder's name."""
    path = Path(shlex.split(words)[0])
    return path.parent.name if path.suffix == ".csv" else path.stem


def key_of(row: Row) -> tuple[Any, ...]:
    """Return what tells a row from others."""
    return tuple(row[name] for name in ("data", "seed", "backbone", "shots", "head", "layers"))


def mean_accuracies(found: list[Row]) -> dict[tuple[str, ...], float]:
    """Return the mean over seeds, in per cent, of each backbone, data set, shots, head and layers."""
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in found:
        groups[row["backbone"], row["data"], row["shots"], row["head"], row["layers"]].append(row["accuracy"])
    return {case: 100 * float(np.mean(values)) for case, values in groups.items()}


def gains(means: dict[tuple[str, ...], float]) -> Iterator[str]:
    """Yield what all stages gain on the last layer, for each backbone and head."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for (backbone, data, shots, head, layers), value in means.items():
        if layers == "stages" and (first := means.get((backbone, data, shots, head, "default"))) is not None:
            found[backbone, head].append((value - first, f"{data} {shots}"))
    for (backbone, head), values in sorted(found.items()):
        worst = min(values)
        mean = np.mean([gain for gain, _ in values])
        yield f"| {backbone} | {head} | {len(values)} | {mean:+.2f} | {worst[0]:+.2f} ({worst[1]}) |"


def against_best(means: dict[tuple[str, ...], float]) -> Iterator[str]:
    """Yield how `auto` stands to the best other contestant of featx and to a plain logistic regression."""
    away, above = [], []
    for (backbone, data, shots, head, _), value in sorted(means.items()):
        if head != "auto":
            continue
        others = {
            case[3:]: accuracy
            for case, accuracy in means.items()
            if case[:3] == (backbone, data, shots) and case[3] != "auto" and case[3] not in PEERS
        }
        best = max(others, key=lambda case: others[case])
        plain = others.get(PLAIN, np.nan)
        away.append(value - others[best])
        above.append(value - plain)
        told = (
            f"{others[best]:.1f} ({' '.join(best)}) | {value - others[best]:+.1f} | {plain:.1f} | {value - plain:+.1f}"
        )
        yield f"| {backbone} | {data} | {shots} | {value:.1f} | {told} |"
    if away:
        yield f"\nauto − best: {np.mean(away):+.2f} on average, {min(away):+.2f} at worst"
        yield f"auto − logreg: {np.nanmean(above):+.2f} on average"


def overall(found: list[Row]) -> tuple[list[str], dict[tuple[str, str], dict[str, tuple[float, float]]]]:
    """Return the numbers of images a class, and for each contestant its accuracy and its processor seconds at each.

    Both are means over data sets and seeds, of the cases that all contestants have.
    """
    shots = sorted({row["shots"] for row in found}, key=lambda text: (text == "all", text.zfill(9)))
    names = list(dict.fromkeys((row["head"], row["layers"]) for row in found))
    points: dict[tuple[str, str], dict[str, tuple[float, float]]] = {name: {} for name in names}
    for n in shots:
        of_case: dict[tuple[str, str], dict[tuple[Any, ...], Row]] = defaultdict(dict)
        for row in found:
            if row["shots"] == n:
                of_case[row["head"], row["layers"]][key_of(row)[:3]] = row
        most = max(map(len, of_case.values()))
        for name, cases in of_case.items():
            if len(cases) == most:
                accuracy = float(np.mean([row["accuracy"] for row in cases.values()]))
                points[name][n] = (100 * accuracy, float(np.mean([row["processor"] for row in cases.values()])))
    return shots, points


def summarised(found: list[Row]) -> Iterator[str]:
    """Yield the lines of the tables."""
    shots, points = overall(found)
    yield f"| classifier | layers | {' | '.join(f'{n} a class' for n in shots)} | seconds |"
    yield "|---|---|" + "---|" * (len(shots) + 1)
    for (head, layers), by_shots in sorted(points.items(), key=lambda one: -list(one[1].values() or [(0, 0)])[-1][0]):
        cells = [f"{by_shots[n][0]:.1f} %" if n in by_shots else "" for n in shots]
        seconds = f"{by_shots[shots[-1]][1]:.1f}" if shots[-1] in by_shots else ""
        yield f"| {head} | {layers} | {' | '.join(cells)} | {seconds} |"
    means = mean_accuracies(found)
    if told := list(gains(means)):
        yield from ["", "| backbone | head | cases | stages − last layer | at worst |", "|---|---|---|---|---|", *told]
    if told := list(against_best(means)):
        yield "\n| backbone | data | images a class | auto | best other | difference | logreg | difference |"
        yield from ["|---|---|---|---|---|---|---|---|", *told]


def draw(found: list[Row], path: Path) -> None:
    """Draw accuracy against processor seconds, a panel for each number of images a class."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shots, points = overall(found)
    figure, axes = plt.subplots(1, len(shots), figsize=(3.6 * len(shots), 3.8), squeeze=False, layout="constrained")
    for axis, n in zip(axes[0], shots, strict=True):
        for (head, layers), by_shots in points.items():
            if n not in by_shots:
                continue
            accuracy, seconds = by_shots[n]
            kind = "auto" if head == "auto" else "peer" if head in PEERS else layers
            colour, marker = LOOKS[kind]
            axis.scatter(seconds, accuracy, s=160 if kind == "auto" else 40, color=colour, marker=marker, zorder=3)
        axis.set_xscale("log")
        axis.set_title("all images" if n == "all" else f"{n} image{'s' * (n != '1')} a class", fontsize=10)
        axis.set_xlabel("processor seconds of the fit")
        axis.grid(alpha=0.3)
        axis.margins(x=0.25, y=0.08)
        axis.set_xlim(axis.get_xlim())
        axis.set_ylim(axis.get_ylim())
    axes[0][0].set_ylabel("test accuracy, %")
    named = {
        "default": "featx, last layer",
        "stages": "featx, stages",
        "auto": "featx, auto",
        "peer": "others, last layer",
    }
    for kind, label in named.items():
        axes[0][-1].scatter([], [], color=LOOKS[kind][0], marker=LOOKS[kind][1], label=label)
    axes[0][-1].legend(fontsize=7, loc="lower right")
    figure.draw_without_rendering()
    for axis, n in zip(axes[0], shots, strict=True):
        named = {(head, layers): by_shots[n] for (head, layers), by_shots in points.items() if n in by_shots}
        write_names(axis, [(head.removeprefix("sklearn-"), *at[::-1]) for (head, _), at in named.items()])
    figure.savefig(path, dpi=150)


def write_names(axis: Any, named: list[tuple[str, float, float]]) -> None:
    """Write each name beside its point, where no point and no other name is; nowhere if there is no such place."""
    points = [tuple(axis.transData.transform((x, y))) for _, x, y in named]
    legend = axis.get_legend()
    box = legend.get_window_extent() if legend else None
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points] + ([box.extents] if box else [])
    scale = axis.figure.dpi / 72
    for (name, x, y), (left, below) in zip(named, points, strict=True):
        width, height = 3.9 * len(name) * scale, 8 * scale
        for dx, dy in ((7, -3), (-7 - width, -3), (-width / 2, 7), (-width / 2, -15), (5, 6), (5, -13)):
            place = left + dx, below + dy, left + dx + width, below + dy + height
            if not any(a < place[2] and c > place[0] and b < place[3] and d > place[1] for a, b, c, d in taken):
                taken.append(place)
                offset = dx / scale, dy / scale
                axis.annotate(name, (x, y), xytext=offset, textcoords="offset points", fontsize=7)
                break


def main() -> None:
    """Compare, print the tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="DATA", help="a path, or a path and options in one quoted text")
    parser.add_argument("--backbones", default="efficientnet_lite0", metavar="A,B")
    parser.add_argument("--heads", default="logreg,ridge,centroid,knn,svm,auto", metavar="X,Y", help="empty for none")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="P,Q", help="empty for none")
    parser.add_argument("--shots", default="1,5,25,all", metavar="1,25,all")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--budget", default="30s", metavar="30s", help="of auto and FLAML")
    parser.add_argument("--most", type=int, metavar="N", help="take at most so many images of each data set")
    parser.add_argument("--cache", default="cache", metavar="DIR")
    parser.add_argument("--rows", type=Path, metavar="FILE.jsonl", help="keep the rows there, a line each")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    args = parser.parse_args()
    kept = args.rows.read_text().splitlines() if args.rows and args.rows.exists() else []
    found = list(map(json.loads, kept))
    for row in rows(args, set(map(key_of, found))):
        found.append(row)
        print(*row.values(), file=sys.stderr, flush=True)
        if args.rows:
            with args.rows.open("a") as file:
                print(json.dumps(row), file=file)
    print("\n".join(summarised(found)))
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
