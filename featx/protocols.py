"""Evaluation protocols of papers, by name: what is fitted, which rows choose, which report, and on what pixels.

Each is defined by its source; results are comparable with published ones only where preprocessing is the
same, so a table made otherwise gets a warning. No protocol here chooses on the rows that it reports.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.datasets import DEFAULT_VAL
from featx.errors import OptionError, UnknownNameError
from featx.features import Features
from featx.heads.linear import LogisticHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.neighbors import KNNHead
from featx.heads.ridge import RidgeHead
from featx.model import Accuracy, FitReport, fit
from featx.model.fitter import Fitted, HeadFitter
from featx.model.fitting import make_model
from featx.model.rows import Parts, choose_rows, row_groups
from featx.model.scaling import FeatureScaler, ScaledTable
from featx.model.scores import Calibration
from featx.settings import parse_bytes
from featx.targets import check_classes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from featx.model.model import Model
    from featx.recipe import Frame, Recipe

#: Few-shot protocols repeat their draw of training rows with each of these.
SEEDS = (0, 1, 2)
SHOTS = (1, 5, 10, 25)
NEIGHBOURS = (10, 20, 100, 200)

Results = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """What a protocol does to images: square input, length of the shorter side before the crop, and how."""

    size: int
    shorter: int
    resize: str = "crop"
    interpolation: str = "bicubic"

    def differences(self, frame: Frame) -> list[str]:
        """Return what is other in `frame`, in words."""
        pairs = {
            "input": (f"{frame.height}×{frame.width}", f"{self.size}×{self.size}"),
            "resize": (frame.resize, self.resize),
            "shorter side": (frame.shorter, self.shorter),
            "interpolation": (frame.interpolation, self.interpolation),
        }
        return [f"{name} {ours} instead of {theirs}" for name, (ours, theirs) in pairs.items() if ours != theirs]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One protocol.

    Attributes
    ----------
    summary, source : str
        What it does, and where it is defined.
    pixels : Pixels
        The preprocessing it is defined with.
    run : callable
        From a table and an `_Options` to a model and its results on test rows.
    """

    summary: str
    source: str
    pixels: Pixels
    run: Callable[[Features, _Options], tuple[Model, Results]]


@dataclass(frozen=True)
class _Options:
    memory: int | None
    seed: int


def check_name(name: str) -> None:
    """Raise UnknownNameError if there is no protocol of that name."""
    if name not in PROTOCOLS:
        raise UnknownNameError.among("protocol", name, PROTOCOLS, "featx fit --help")


def run_protocol(
    features: Features | str | Path, name: str, *, memory: int | str | None = None, seed: int = 0
) -> Model:
    """Run a protocol on a table that has training and test rows.

    Parameters
    ----------
    features : Features or path
        A labelled table. Its validation rows choose where it has some; else a tenth of train does.
    name : str
        A key of `PROTOCOLS`.
    memory : int or str, optional
        As in `featx.fit`.
    seed : int
        Of the draw of validation rows. Few-shot protocols draw with `SEEDS` whatever this is.

    Returns
    -------
    Model
        Its ``report`` is that of `featx.fit`, with ``protocol``: name, source, ``chose`` and ``reported`` (which
        rows, in words), ``results`` and ``warnings``.

    Raises
    ------
    UnknownNameError
        If there is no such protocol.
    OptionError
        If the table has no test rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> table = Features.from_arrays(X, y, splits=["train"] * 1200 + ["test"] * 597)
    >>> model = run_protocol(table, "dino-knn")
    >>> [result["setting"] for result in model.report["protocol"]["results"]]
    ['k = 10', 'k = 20', 'k = 100', 'k = 200']
    """
    started = time.perf_counter()
    check_name(name)
    table = features if isinstance(features, Features) else Features.open(features)
    check_classes(table.task, "A protocol")
    if not (table.select(np.flatnonzero(table.y >= 0)).splits == "test").any():
        raise OptionError(f"--protocol {name} reports on test rows, and the table has none. Extract data with a test/.")
    protocol = PROTOCOLS[name]
    options = _Options(None if memory is None else parse_bytes(memory), seed)
    model, results = protocol.run(table, options)
    return model.with_report(
        seconds=round(time.perf_counter() - started, 3),
        protocol={
            "name": name,
            "source": protocol.source,
            **(model.report.protocol or {}),
            "results": results,
            "warnings": _warnings(protocol.pixels, table.recipe),
        },
    )


def _warnings(pixels: Pixels, recipe: Recipe | None) -> list[str]:
    if recipe is None:
        return ["The table does not say how its rows were made from images: published numbers may not compare."]
    different = pixels.differences(recipe.frame)
    if not different:
        return []
    return [
        f"The table's preprocessing is not the protocol's: {', '.join(different)}. Published numbers do not compare."
    ]


def _share(table: Features) -> str | None:
    """Return the share of train to choose on, None where the table has validation rows of its own."""
    return None if (table.splits == "val").any() else DEFAULT_VAL


def _chose(table: Features, n: int, seed: int) -> str:
    drawn = "the table's own" if _share(table) is None else f"drawn from train with seed {seed}"
    return f"{n:,} validation rows ({drawn})"


def _dinov2_logreg(table: Features, options: _Options) -> tuple[Model, Results]:
    """45 values of C in 1e-6…1e5 on raw features; the chosen one is fitted again on train and validation rows."""
    head = LogisticHeadCV((10 ** np.linspace(-6, 5, 45)).tolist(), max_iter=1000)
    return _refitted(table, options, head)


def _refitted(table: Features, options: _Options, head: Any) -> tuple[Model, Results]:
    """Fit on train, choose on validation, fit on both and report on test."""
    share, seed = _share(table), options.seed
    model = fit(table, head, scale="none", val=share, refit=True, test=True, seed=seed, memory=options.memory)
    val, found = model.report.val, model.report.test
    assert val is not None
    assert found is not None
    told = {
        "chose": _chose(table, val.n, seed),
        "reported": f"{found.n:,} test rows, after a fit on train and validation rows",
    }
    return model.with_report(protocol=told), [{"setting": f"C = {model.head.C:.4g}", **found.to_dict()}]


def _clip_lp(table: Features, options: _Options) -> tuple[Model, Results]:
    """Penalties 1e-6…1e6: seven two decades apart, then halving the distance around the best down to 1/8 decade."""
    rows = choose_rows(table, _share(table), options.seed)
    fitter = HeadFitter(table, FeatureScaler("none"), "logreg", options.memory, options.seed)

    def accuracies(exponents: list[float]) -> dict[float, float]:
        head = LogisticHeadCV([10.0**-exponent for exponent in exponents], max_iter=1000)
        scores = fitter.fit(head, rows.train, rows.val).head.scores_[0]
        return dict(zip(sorted(exponents, reverse=True), scores.tolist(), strict=True))

    tried = halve_around_peak(accuracies, np.arange(-6.0, 7.0, 2.0).tolist(), finest=0.125)
    best = max(tried, key=lambda exponent: (tried[exponent], exponent))  # of equals the strongest penalty
    model, results = _refitted(table, options, LogisticHead(10.0**-best, max_iter=1000))
    path = [{"C": 10.0**-e, "score": tried[e]} for e in sorted(tried, reverse=True)]
    return model.with_report(chosen={"C": model.head.C}, path=path), results


def halve_around_peak(
    score: Callable[[list[float]], dict[float, float]], places: list[float], *, finest: float
) -> dict[float, float]:
    """Score evenly spaced places, then both neighbours of the best at half the spacing, until that is `finest`.

    Parameters
    ----------
    score : callable
        From places to the score of each.
    places : list of float
        Ascending; nothing outside is tried.
    finest : float
        Last spacing.

    Examples
    --------
    >>> sorted(halve_around_peak(lambda xs: {x: -abs(x - 1.3) for x in xs}, [0, 2, 4], finest=0.5))
    [0, 0.5, 1.0, 1.5, 2, 3.0, 4]
    """
    tried = score(places)
    spacing = places[1] - places[0]
    while spacing > finest:
        spacing /= 2
        peak = max(tried, key=lambda place: (tried[place], place))
        around = [peak - spacing, peak + spacing]
        tried |= score([place for place in around if places[0] <= place <= places[-1]])
    return tried


def _dino_knn(table: Features, options: _Options) -> tuple[Model, Results]:
    """Weighted votes of the nearest training rows by cosine; the k nearest are the first of the 200 nearest."""
    share = None if _share(table) is None else 0
    model = fit(table, KNNHead(20, temperature=0.07), scale="l2", val=share, seed=options.seed, memory=options.memory)
    test = choose_rows(table, share, options.seed).test
    rows = ScaledTable(table.select(test), model.scaler)
    similarities, indices = model.head.kneighbors(rows, max(NEIGHBOURS))
    found = {}
    for k in NEIGHBOURS:
        labels = model.head.classes_[model.head.shares(similarities[:, :k], indices[:, :k]).argmax(axis=1)]
        found[k] = Accuracy(len(test), int((labels == table.y[test]).sum()))
    told = {
        "chose": "nothing was chosen: every k is reported, and the model keeps k = 20",
        "reported": f"{len(test):,} test rows",
    }
    results = [{"setting": f"k = {k}", **accuracy.to_dict()} for k, accuracy in found.items()]
    return model.with_report(test=found[20], protocol=told), results


def _bigvision_fewshot(table: Features, options: _Options) -> tuple[Model, Results]:
    """Ridge regression in closed form on 1, 5, 10 and 25 images a class, each draw holding the smaller ones."""
    rows = choose_rows(table, None if _share(table) is None else 0, options.seed)
    y, k = table.y, len(table.classes)
    draws = {}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        of_class = [rng.permutation(rows.train[y[rows.train] == c]) for c in range(k)]
        for shots in SHOTS:
            draws[shots, seed] = np.sort(np.concatenate([members[:shots] for members in of_class]))
    fits = {draw: _least_squares(table, support, k) for draw, support in draws.items()}
    n_correct = dict.fromkeys(fits, 0)
    fitter = HeadFitter(table, FeatureScaler("standard"), "ridge", options.memory, options.seed)
    for where, X in table.select(rows.test).blocks(fitter.block_bytes):
        for draw, fitted in fits.items():
            codes = fitted.head.predict(fitted.scaler.transform(X))
            n_correct[draw] += int((codes == y[rows.test[where]]).sum())
    n = len(rows.test)
    results = [_over_seeds(f"{shots} a class", n, [n_correct[shots, seed] for seed in SEEDS]) for shots in SHOTS]
    largest = (SHOTS[-1], SEEDS[0])
    model = make_model(table, "ridge", fits[largest], draws[largest], rows.val[:0], Calibration(), 0)
    report = _report(model, table, train=fits[largest].accuracy(draws[largest]), test=Accuracy(n, n_correct[largest]))
    told = {
        "chose": "nothing was chosen; the model is the one of 25 images a class and seed 0",
        "reported": f"{n:,} test rows, for {len(SEEDS)} draws of training rows",
    }
    return dataclasses.replace(model, report=dataclasses.replace(report, protocol=told)), results


def _least_squares(table: Features, support: NDArray[np.intp], k: int) -> Fitted:
    """Fit targets ±1 on standardised rows with a constant 100 beside them, so that the bias is hardly penalised.

    W = (XᵀX + λI)⁻¹ XᵀT, or Xᵀ(XXᵀ + λI)⁻¹ T of fewer rows than columns.
    """
    penalty, rows = 2.0**10, table[support].astype(np.float64)
    scaler = FeatureScaler("standard")
    scaler.mean_, scaler.scale_ = rows.mean(axis=0).astype(np.float32), (rows.std(axis=0) + 1e-5).astype(np.float32)
    X = np.column_stack([scaler.transform(rows).astype(np.float64), np.full(len(rows), 100.0)])
    T = np.where(table.y[support][:, None] == np.arange(k), 1.0, -1.0)
    n, d = X.shape
    if n >= d:
        W = np.linalg.solve(X.T @ X + penalty * np.eye(d), X.T @ T)
    else:
        W = X.T @ np.linalg.solve(X @ X.T + penalty * np.eye(n), T)
    outputs = slice(1, None) if k == 2 else slice(None)
    head = RidgeHead(penalty)
    head.coef_, head.intercept_ = W[:-1, outputs].T.astype(np.float32), 100 * W[-1, outputs].astype(np.float32)
    head.classes_, head.n_features_in_ = np.arange(k), d - 1
    head.alpha_, head.loo_scores_ = penalty, None
    return Fitted(table, scaler, head)


def _vtab_1k(table: Features, options: _Options) -> tuple[Model, Results]:
    """Logistic regression on 1,000 rows of train: C chosen on 200 of them after fits on 800, then fitted on all."""
    rows = choose_rows(table, None if _share(table) is None else 0, options.seed)
    if len(rows.train) < 1000:
        raise OptionError(f"--protocol vtab-1k draws 1,000 training rows, and the table has {len(rows.train):,}.")
    fitter = HeadFitter(table, FeatureScaler("standard"), "logreg", options.memory, options.seed)
    n_correct: list[int] = []
    models: list[Model] = []
    for seed in SEEDS:
        drawn = np.random.default_rng(seed).permutation(rows.train)[:1000]
        group = row_groups(table, drawn)
        teaches = group < np.sort(group)[800]  # whole groups; of rows by themselves the first 800
        parts = Parts(np.sort(drawn[teaches]), np.sort(drawn[~teaches]), rows.test)
        choosing = fitter.fit(LogisticHeadCV(), parts.train, parts.val)
        C = choosing.head.C_
        last = fitter.fit(LogisticHead(C), parts.train_and_val, parts.val[:0])
        test = last.accuracy(rows.test)
        assert test is not None
        n_correct.append(test.n_correct)
        model = make_model(table, "logreg", last, parts.train_and_val, parts.val, choosing.calibration(parts.val), 0)
        scores = {"train": choosing.accuracy(parts.train), "val": choosing.accuracy(parts.val), "test": test}
        models.append(dataclasses.replace(model, report=_report(model, table, chosen={"C": C}, **scores)))
    told = {
        "chose": "200 of 1,000 training rows; the model is the one of seed 0",
        "reported": f"{len(rows.test):,} test rows, for {len(SEEDS)} draws of training rows",
    }
    return models[0].with_report(protocol=told), [_over_seeds("1,000 rows", len(rows.test), n_correct)]


def _report(model: Model, table: Features, **found: Any) -> FitReport:
    """Return the report of a model that was not made by `featx.fit`."""
    return FitReport(
        head=model.head_name,
        table=None if table.path is None else str(table.path),
        n_parameters=model.n_parameters,
        scale=model.scaler.kind,
        temperature=model.calibration.temperature,
        **found,
    )


def _over_seeds(setting: str, n: int, n_correct: Iterable[int]) -> dict[str, Any]:
    """Return the mean accuracy over draws with its 95 % interval by Student's t, which tells of the draws alone."""
    from scipy.stats import t

    accuracies = np.array(list(n_correct)) / n
    half = t.ppf(0.975, len(accuracies) - 1) * accuracies.std(ddof=1) / np.sqrt(len(accuracies))
    mean = float(accuracies.mean())
    interval = [max(0.0, mean - float(half)), min(1.0, mean + float(half))]
    return {"setting": setting, "n": n, "accuracy": mean, "ci95": interval, "accuracies": accuracies.tolist()}


#: Name → protocol.
PROTOCOLS = {
    "dinov2-logreg": Protocol(
        summary="logistic regression, 45 values of C",
        source="Oquab et al. 2023, dinov2/eval/log_regression.py",
        pixels=Pixels(size=224, shorter=224),
        run=_dinov2_logreg,
    ),
    "dino-knn": Protocol(
        summary="weighted nearest neighbours, k = 10, 20, 100, 200",
        source="Caron et al. 2021, dino/eval_knn.py",
        pixels=Pixels(size=224, shorter=256),
        run=_dino_knn,
    ),
    "clip-lp": Protocol(
        summary="logistic regression, a search over the penalty around its best value",
        source="Radford et al. 2021, appendix A.3",
        pixels=Pixels(size=224, shorter=224),
        run=_clip_lp,
    ),
    "bigvision-fewshot": Protocol(
        summary="ridge regression on 1, 5, 10 and 25 images a class, three draws",
        source="big_vision/evaluators/fewshot_lsr.py",
        pixels=Pixels(size=224, shorter=256, interpolation="bilinear"),
        run=_bigvision_fewshot,
    ),
    "vtab-1k": Protocol(
        summary="logistic regression on 1,000 rows, three draws",
        source="Zhai et al. 2019, arXiv:1910.04867",
        pixels=Pixels(size=224, shorter=0, resize="squash", interpolation="bilinear"),
        run=_vtab_1k,
    ),
}
