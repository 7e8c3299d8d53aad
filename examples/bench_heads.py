"""featx's heads against scikit-learn, scikit-learn-intelex, skorch and XGBoost: time, objective, accuracy.

Everything is measured side by side in one run, on the same rows, in the same process; importing libraries is counted
for nobody:

    pip install 'featx[bench]'
    python examples/bench_heads.py                                 # synthetic features, 10,000 × 256
    python examples/bench_heads.py --table cache/cifar10-…/….h5    # a table with splits train and test
    python examples/bench_heads.py --table train.npz test.npz --only logreg,path --json

Expected on two cores with CIFAR-10 features of efficientnet_lite0 (50,000 × 1,280): logistic regression at a lower
objective in a third of scikit-learn's time at C = 1e-4, a tenth at 0.01 and 1; twenty values of C with five folds in
less than two of its fits; XGBoost's accuracy in an eighth of its time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from featx.features import Features
from featx.heads import DenseHead, KNNHead, LogisticHead, LogisticHeadCV, RidgeHead, XGBoostHead


@dataclass(frozen=True)
class Data:
    """Rows (n, d) in float32 and labels (n,) to fit on and to test on."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


@dataclass(frozen=True)
class Result:
    """One line: who did what, in how many seconds, with which objective, and which share of test rows right."""

    section: str
    setting: str
    who: str
    seconds: float
    test_accuracy: float | None = None
    objective: float | None = None
    note: str = ""


def load(paths: list[Path]) -> Data:
    """Read a featx table with splits, or one npz of training rows and one of test rows (``X``, ``y`` each)."""
    if not paths:
        return synthetic()
    if len(paths) == 2:
        train, test = (np.load(path) for path in paths)
        return Data(train["X"], train["y"], test["X"], test["y"])
    return Data(*Features.open(paths[0]).split("train"), *Features.open(paths[0]).split("test"))


def synthetic(n: int = 10_000, d: int = 256, k: int = 10) -> Data:
    """Draw overlapping classes with a decaying spectrum behind a rectifier, as deep features have it."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, k, n + n // 5)
    scales = np.arange(1, d + 1) ** -0.5
    centres = 0.8 * rng.standard_normal((k, d)) * scales
    X = centres[y] + rng.standard_normal((len(y), d)) * scales
    X = np.maximum(X @ rng.standard_normal((d, d)), 0).astype(np.float32)
    return Data(X[:n], y[:n], X[n:], y[n:])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds on the clock, and what `work` returned."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # contestants are given so many iterations or epochs
        returned = work()
    return time.perf_counter() - started, returned


def logistic_objective(head: Any, C: float, X: np.ndarray, y: np.ndarray) -> float:
    """Return C Σ loss + ½ ‖coef‖² in float64."""
    scores = X @ np.asarray(head.coef_, np.float64).T + head.intercept_
    scores -= scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(y)), y]
    return float(C * losses.sum() + (np.asarray(head.coef_, np.float64) ** 2).sum() / 2)


def logreg(data: Data) -> Iterator[Result]:
    """One fit at each of three penalties."""
    from sklearn.linear_model import LogisticRegression
    from sklearnex.linear_model import LogisticRegression as IntelRegression

    for C in (1e-4, 1e-2, 1.0):
        contestants = {
            "featx": LogisticHead(C),
            "scikit-learn": LogisticRegression(C=C, max_iter=2000),
            "scikit-learn-intelex": IntelRegression(C=C, max_iter=2000),
        }
        for who, head in contestants.items():
            seconds, _ = timed(lambda head=head: head.fit(data.X, data.y))
            objective = logistic_objective(head, C, data.X, data.y)
            note = f"{int(np.max(head.n_iter_))} iterations"
            yield Result("logreg", f"C = {C:g}", who, seconds, head.score(data.X_test, data.y_test), objective, note)


def path(data: Data) -> Iterator[Result]:
    """Twenty penalties with five folds, against one fit of scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    ours = LogisticHeadCV(20, cv=5, random_state=0)
    seconds, _ = timed(lambda: ours.fit(data.X, data.y))
    setting = "20 values of C in 1e-5…1, 5 folds"
    yield Result(
        "path", setting, "featx", seconds, ours.score(data.X_test, data.y_test), note=f"chose C = {ours.C_:.3g}"
    )
    theirs = LogisticRegression(C=1.0, max_iter=2000)
    seconds, _ = timed(lambda: theirs.fit(data.X, data.y))
    yield Result("path", "one fit, C = 1", "scikit-learn", seconds, theirs.score(data.X_test, data.y_test))


def mlp(data: Data) -> Iterator[Result]:
    """Train the same network: ours as it is and for three epochs, theirs for ten, of which the best counts."""
    from sklearn.neural_network import MLPClassifier

    hidden, batch, epochs, k = (256, 128, 64), 250, 10, len(np.unique(data.y))
    limit = seconds_of_products(data, (data.X.shape[1], *hidden, k), batch)
    for ours in (DenseHead(hidden, random_state=0), DenseHead(hidden, epochs=3, random_state=0)):
        seconds, _ = timed(lambda ours=ours: ours.fit(data.X, data.y))
        note = f"{ours.n_iter_} epochs of {seconds / ours.n_iter_:.2f} s; its products alone {limit:.2f} s"
        yield Result("mlp", "256-128-64, batch 250", "featx", seconds, ours.score(data.X_test, data.y_test), note=note)

    theirs = MLPClassifier(hidden, batch_size=batch, max_iter=1, warm_start=True, random_state=0)
    yield _best_epoch("scikit-learn", theirs.fit, theirs.score, data, epochs)
    net = _skorch_net(data.X.shape[1], hidden, k, batch)
    yield _best_epoch("skorch", net.partial_fit, net.score, data, epochs)


def _best_epoch(who: str, train: Callable[..., Any], score: Callable[..., float], data: Data, epochs: int) -> Result:
    """Train for `epochs` and report the best of them, with the time of all."""
    total, best, when = 0.0, 0.0, 0
    for epoch in range(1, epochs + 1):
        seconds, _ = timed(lambda: train(data.X, data.y))
        total += seconds
        accuracy = score(data.X_test, data.y_test)
        if accuracy > best:
            best, when = accuracy, epoch
    note = f"{epochs} epochs of {total / epochs:.2f} s; best after {when}, at {total * when / epochs:.1f} s"
    return Result("mlp", "256-128-64, batch 250", who, total, best, note=note)


def _skorch_net(d: int, hidden: tuple[int, ...], k: int, batch: int) -> Any:
    from skorch import NeuralNetClassifier
    from torch import nn

    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in zip((d, *hidden), (*hidden, k), strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return NeuralNetClassifier(
        nn.Sequential(*layers[:-1]),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=1,
        batch_size=batch,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def seconds_of_products(data: Data, widths: tuple[int, ...], batch: int) -> float:
    """Time the products of one epoch: forward, gradients of weights, and of all inputs but the rows."""
    rows = torch.from_numpy(np.ascontiguousarray(data.X[:batch]))
    pairs = list(itertools.pairwise(widths))
    weights = [torch.randn(outputs, inputs) for inputs, outputs in pairs]
    values = [rows, *(torch.randn(batch, outputs) for _, outputs in pairs)]

    def products() -> None:
        for layer, weight in enumerate(weights):
            values[layer] @ weight.T
            values[layer + 1].T @ values[layer]
            if layer:
                values[layer + 1] @ weight

    steps = 50
    timed(lambda: [products() for _ in range(5)])
    return timed(lambda: [products() for _ in range(steps)])[0] / steps * len(data.X) / batch


def xgboost(data: Data) -> Iterator[Result]:
    """XGBoost's defaults for twenty rounds; ours as it is, and stopped where it first reaches their accuracy."""
    from xgboost import XGBClassifier

    theirs = XGBClassifier(n_estimators=20, n_jobs=os.cpu_count())
    seconds, _ = timed(lambda: theirs.fit(data.X, data.y))
    goal = theirs.score(data.X_test, data.y_test)
    yield Result("xgboost", "20 rounds", "XGBoost defaults", seconds, goal)
    for rounds in (40, 60, 100):
        ours = XGBoostHead(rounds, random_state=0)
        seconds, _ = timed(lambda ours=ours: ours.fit(data.X, data.y))
        yield Result("xgboost", f"{rounds} rounds", "featx", seconds, ours.score(data.X_test, data.y_test))


def knn(data: Data) -> Iterator[Result]:
    """Neighbours of all test rows, exact: the rows found must be those of scikit-learn's brute force."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearnex.neighbors import KNeighborsClassifier as IntelClassifier

    ours = KNNHead(20, weights="uniform").fit(data.X, data.y)
    seconds, (_, found) = timed(lambda: ours.kneighbors(data.X_test))
    accuracy = ours.score(data.X_test[:2000], data.y_test[:2000])
    yield Result("knn", "k = 20, cosine", "featx", seconds, accuracy)
    unit, unit_test = (X / np.linalg.norm(X, axis=1, keepdims=True) for X in (data.X, data.X_test))
    # On rows of length 1 the nearest by Euclid are the nearest by cosine, and that is what both are fastest at.
    contestants = {
        "scikit-learn, cosine": (KNeighborsClassifier(20, algorithm="brute", metric="cosine"), data.X, data.X_test),
        "scikit-learn, unit rows": (KNeighborsClassifier(20, algorithm="brute"), unit, unit_test),
        "scikit-learn-intelex, unit rows": (IntelClassifier(20, algorithm="brute"), unit, unit_test),
    }
    for who, (theirs, X, X_test) in contestants.items():
        theirs.fit(X, data.y)
        seconds, (_, expected) = timed(lambda theirs=theirs, X_test=X_test: theirs.kneighbors(X_test))
        same = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]) / 20
        yield Result("knn", "k = 20, cosine", who, seconds, note=f"{same:.3%} of its neighbours are featx's")


def ridge(data: Data) -> Iterator[Result]:
    """One penalty, and twenty with exact leave-one-out, against scikit-learn's fit of one."""
    from sklearn.linear_model import RidgeClassifier

    alphas = np.logspace(-2, 6, 20)
    theirs = RidgeClassifier(100.0)
    seconds, _ = timed(lambda: theirs.fit(data.X, data.y))
    yield Result("ridge", "alpha = 100", "scikit-learn", seconds, theirs.score(data.X_test, data.y_test))
    for setting, head in (("alpha = 100", RidgeHead(100.0)), ("20 alphas, leave-one-out", RidgeHead(alphas))):
        seconds, _ = timed(lambda head=head: head.fit(data.X, data.y))
        same = np.mean(head.predict(data.X_test) == theirs.predict(data.X_test))
        note = f"{same:.2%} the same predictions" if setting == "alpha = 100" else f"chose alpha = {head.alpha_:.3g}"
        yield Result("ridge", setting, "featx", seconds, head.score(data.X_test, data.y_test), note=note)


SECTIONS = {work.__name__: work for work in (logreg, path, mlp, xgboost, knn, ridge)}


def line(result: Result) -> str:
    accuracy = "" if result.test_accuracy is None else f"{100 * result.test_accuracy:.2f} %"
    objective = "" if result.objective is None else f"{result.objective:,.3f}"
    cells = (result.section, result.setting, result.who, f"{result.seconds:.2f}", objective, accuracy, result.note)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, nargs="+", default=[], metavar="FILE", help="one .h5, or two .npz")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {','.join(SECTIONS)}")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a Markdown table")
    args = parser.parse_args()
    data = load(args.table)
    shape = {"rows": len(data.X), "features": data.X.shape[1], "test_rows": len(data.X_test)}
    if not args.json:
        print(f"{shape['rows']:,} × {shape['features']:,} features, {shape['test_rows']:,} test rows\n")
        print("| section | setting | who | seconds | objective | test accuracy | |\n|---|---|---|---|---|---|---|")
    results = []
    for name in args.only.split(","):
        for result in SECTIONS[name](data):
            results.append(result)
            if not args.json:
                print(line(result), flush=True)
    if args.json:
        print(json.dumps({**shape, "results": [asdict(result) for result in results]}))


if __name__ == "__main__":
    main()
