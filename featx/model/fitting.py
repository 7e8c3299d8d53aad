"""`fit`: from a table to a model. Train teaches, validation chooses, test is looked at only when asked."""

from __future__ import annotations

import copy
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import featx.heads  # noqa: F401 - before anything else imports scikit-learn, see there

# isort: split
import numpy as np
from sklearn.base import clone

from featx.datasets import split_warnings
from featx.errors import DataError, OptionError
from featx.features import Features, in_task, opened, relabelled
from featx.heads.attentive import AttentiveHead
from featx.heads.boosted import XGBoostHead, XGBoostRegressor
from featx.heads.dense import ConvHead
from featx.heads.lda import LDAHead
from featx.heads.linear import LogisticHead
from featx.heads.logistic_cv import LogisticHeadCV
from featx.heads.names import make_head
from featx.heads.neighbors import CentroidHead, KNNHead, KNNRegressor
from featx.heads.state import is_exportable
from featx.metrics import metric_of
from featx.model.fitter import HeadFitter
from featx.model.gaps import known_groups
from featx.model.inputs import inputs_of
from featx.model.items import as_items, choose_combining, combining_of, contents_of, taught
from featx.model.joins import BALANCES, blocks_of, fit_best_join
from featx.model.model import Model
from featx.model.near_groups import with_near_groups
from featx.model.report import FitReport, spelled
from featx.model.rows import Parts, choose_rows
from featx.model.scaling import FeatureScaler
from featx.model.scores import Calibration, OODScore
from featx.model.settings import Fit
from featx.model.target_fitting import FittedTargets, TargetFitter, learnable
from featx.settings import keywords, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from featx.features.items import Combining
    from featx.model.fitter import Fitted
    from featx.model.outputs import Outputs
    from featx.recipe import Views
    from featx.targets import Targets

#: Rows of evidence that all features of a table vary alike. On one, five and 25 images a class it was worth 17, 5 and
#: 0.6 points of a logistic regression, on four data sets; 50 and 200 rows as much.
PRIOR = 10.0
#: What ``--scale auto`` means, by class of head; every other gets "standard".
_AUTO_SCALE = {
    KNNHead: "l2", KNNRegressor: "l2", CentroidHead: "l2", LDAHead: "l2",
    XGBoostHead: "none", XGBoostRegressor: "none", ConvHead: "none", AttentiveHead: "none",
}  # fmt: skip
#: Penalties of a ridge on numbers where none is named: the best differ by orders of magnitude among targets.
_ALPHAS = tuple(10.0**power for power in range(-2, 7))
#: Settings that some heads choose by themselves, and then keep in an attribute of that name and "_".
_CHOSEN = ("C", "alpha")


@keywords(Fit, hint="A setting of the head goes into settings={{'{name}': {value!r}}}.")
def fit(features: Features | str | Path | Sequence[Features | str | Path], how: Fit) -> Model:
    """Fit a head on a table.

    Parameters
    ----------
    features : Features or path, or several of them
        A labelled table. Several are put side by side, see `featx.join`; validation decides which of them, see Notes.
    {options}
    settings : dict, optional
        Constructor arguments of a head given by name.

    Notes
    -----
    `head` may also be an unfitted scikit-learn classifier. ``logreg`` without a ``C`` chooses it on the validation
    rows: by default the table's own, else a tenth of train, see `featx.model.rows.choose_rows`. ``ridge`` on numbers
    without an ``alpha`` takes the one of 0.01, 0.1, … 1,000,000 with the best leave-one-out R². The scaling
    ``auto`` is ``l2`` for knn, centroid and lda, ``none`` for xgboost, conv and attentive, else ``standard``, where
    ten rows of evidence stand for all features of a table varying alike, so that few rows do not blow up those that
    hardly vary in them. A head learns from all views that the table has, unless `views` says fewer; validation, test
    and calibration use plain images. After a `refit`, validation accuracy and calibration are those of the fit before.
    `metric` is what a search, folds and the C of ``logreg`` are chosen by; heads that stop early do so by their loss.

    Of several tables each is tried by itself; the best two, the best three and so on are tried side by side, with every
    column or every table weighing alike. The lowest loss on validation wins, and may be that of one table: see
    `featx.model.joins.fit_best_join`. The report's ``joins`` lists what was tried.

    Returns
    -------
    Model
        Its ``report`` is the JSON form of ``featx fit`` (but for the model's path), with more beside.

    Raises
    ------
    DataError
        If the table has no labels, no rows to train on, one class, or features that are no numbers.
    OptionError
        If a setting cannot be, or the head cannot stream a table larger than `memory`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> model = fit(Features.from_arrays(*load_digits(return_X_y=True)), "ridge")
    >>> model.report["train"]["n"], model.report["val"]["n"], model.report["val"]["accuracy"] > 0.9
    (1618, 179, True)
    """
    table = opened(features)
    if how.labels is not None:
        table = relabelled(table, how.labels)
    if how.group_near_duplicates is not None:
        table, told = with_near_groups(in_task(table, how.task), how.group_near_duplicates)
        model = fit(table, **vars(dataclasses.replace(how, group_near_duplicates=None, labels=None)))
        return model.with_report(warnings=(told, *model.report.warnings))
    if is_auto(how.head):
        from featx.model.auto import AutoFit

        for option, flag in ((how.search, "--search"), (how.cv, "--cv")):
            if option is not None:
                raise OptionError(
                    f"{flag} tries settings of one head, and --head auto tries heads. Leave out one of them."
                )
        if how.metric not in (None, "accuracy", "balanced_accuracy", "map", "r2"):
            raise OptionError(
                f"--metric {how.metric} chooses among settings of one head. --head auto goes by the loss, with "
                "--metric balanced_accuracy by the mean of each class's. Say that, or leave out one of them."
            )
        table = in_task(table, how.task)
        combining = choose_combining(table, how.combine)
        return AutoFit(table if combining is None else _taught_items(table, combining, how), how, _fit).run()
    if how.budget is not None:
        raise OptionError("--budget is how long --head auto may try heads. Leave it out, or say --head auto.")
    if len(table.tables) == 1:
        return _fit(table, how)
    table = in_task(table, how.task)
    combining = choose_combining(table, how.combine)
    return fit_best_join(table if combining is None else as_items(table, combining), how, _fit)


def _taught_items(table: Features, combining: Combining, how: Fit) -> Features:
    """Return a table of items, combined as its training rows teach: the same for all heads that are tried."""
    items = as_items(table, combining)
    rows, targets = known_rows(items, how)
    return taught(items, rows.train, lambda at: items.y[at] if targets is None else targets.y[at], items.task, how.seed)


def is_auto(head: Any) -> bool:
    """Say whether `head`, a name or an estimator, stands for trying several."""
    return head == "auto" if isinstance(head, str) else bool(getattr(head, "tries_heads", False))


def known_rows(table: Features, how: Fit) -> tuple[Parts, Targets | None]:
    """Return the rows that teach, choose and report, as every fit on `table` takes them, and the targets it learns."""
    targets = table.given_targets
    rows = choose_rows(table, how.val, how.seed, targets)
    if targets is None:
        return _of_known_classes(table, rows)[0], None
    return rows, targets.columns(learnable(targets, rows)[0])


def _fit(table: Features, how: Fit, balance: str = BALANCES[0]) -> Model:
    """Fit a head on a table, or on all tables that stand side by side in it, see `fit`."""
    started, seed = time.perf_counter(), how.seed
    given, table = table, in_task(table, how.task)
    if combining_of(table) is None and (combining := choose_combining(table, how.combine)) is not None:
        if table.views > 1 and how.views != 1:
            raise OptionError("Items are made of images as they are. Leave their augmented views out: --views 1")
        table = as_items(table, combining)
    name, estimator = _make_head(how.head, how.settings or {}, seed, table.task)
    scale = _AUTO_SCALE.get(type(estimator), "standard") if how.scale == "auto" else how.scale
    scaler = FeatureScaler(scale, blocks_of(table, scale, balance), prior=PRIOR if how.scale == "auto" else 0.0)
    targets = table.given_targets
    rows = choose_rows(table, how.val, seed, targets)
    if targets is None:
        rows, said = _of_known_classes(table, rows)
    else:
        kept, said = learnable(targets, rows)
    _check_numbers(table, rows.train_and_val)
    if how.test and not len(rows.test):
        raise OptionError("--test needs a test split, and the table has none. Leave out --test.")
    limit = None if how.memory is None else parse_bytes(how.memory)
    used = _views(table, how.views)
    viewed, origin = table.all_views(used.n) if used else (table, None)
    fitter = HeadFitter(viewed, scaler, name, limit, seed, origin, how.metric)
    if (of_views := viewed.given_targets) is not None:
        fitter = TargetFitter(viewed, scaler, name, limit, seed, origin, how.metric, targets=of_views.columns(kept))
    fitter.check_metric()
    if how.search is None:
        known = table if targets is None else targets.columns(kept)
        estimator = _choosing(name, estimator, how, table.task, known.y[rows.val])
    tried = fitter.try_settings(estimator, rows, how.search, how.cv)
    estimator.set_params(**tried.best)
    first = last = fitter.fit(estimator, rows.train, rows.val)
    own_choice = _own_choice(estimator, first.head)
    if how.refit and len(rows.val):
        last = fitter.fit(as_chosen(estimator, own_choice | _rounds(first.head)), rows.train_and_val, rows.val[:0])
    taught_on = rows.train if last is first else rows.train_and_val
    outputs = first.learned(rows.val) if isinstance(first, FittedTargets) else None
    calibration = Calibration() if outputs else first.calibration(rows.val)
    model = make_model(table, name, last, taught_on, rows.val, calibration, seed, used)
    shown = rows if how.test else dataclasses.replace(rows, test=rows.test[:0])
    report = FitReport(
        head=name,
        table=None if given.path is None else str(given.path),
        tables=_paths(given),
        task=table.task,
        views=used.n if used else 1,
        augment=used.augment if used else None,
        **_scores(first, last, shown, outputs, how),
        seconds=round(time.perf_counter() - started, 3),
        n_parameters=model.n_parameters,
        chosen=spelled(tried.best | own_choice | ({"combine": model.items.how} if model.items else {})),
        scale=scaler.kind,
        refit=last is not first,
        temperature=model.calibration.temperature,
        search=tried.search,
        cv=tried.cv,
        path=_path(first.head),
        history=getattr(first.head, "history_", {}),
        warnings=(
            *said,
            *_leaks(table, shown),
            *known_groups(first, rows.train, {"val": rows.val}, outputs),
            *known_groups(last, taught_on, {"test": shown.test}, outputs),
        ),
    )
    model = dataclasses.replace(model, report=report, outputs=outputs)
    return model if outputs else _with_classes_of_train(model)


def _scores(first: Fitted, last: Fitted, rows: Parts, outputs: Outputs | None, how: Fit) -> dict[str, Any]:
    """Return scores on train and validation of the fit that chose, on test of the last one; None for no rows."""
    if outputs is not None and isinstance(first, FittedTargets) and isinstance(last, FittedTargets):
        # The nearest neighbour of a training row is that row.
        taught = rows.train[:0] if hasattr(first.head, "units_") else rows.train
        parts = {"train": (first, taught), "val": (first, rows.val), "test": (last, rows.test)}
        return {name: fitted.score(positions, outputs) for name, (fitted, positions) in parts.items()}
    beside = None if how.metric is None else metric_of("classify", how.metric)
    train = first.train_accuracy(rows.train, how.seed)
    return {"train": train, "val": first.accuracy(rows.val, beside), "test": last.accuracy(rows.test, beside)}


def make_model(
    table: Features,
    name: str,
    fitted: Fitted,
    trained_on: NDArray[np.intp],
    chosen_on: NDArray[np.intp],
    calibration: Calibration,
    seed: int,
    views: Views | None = None,
) -> Model:
    """Return the model of a fitted head that remembers how rows are made and which it has seen; its report is empty."""
    items = combining_of(table)
    if items is not None:
        table = fitted.table  # which has learned how to combine them
        items = combining_of(table)
    return Model(
        items=items,
        head=fitted.head,
        head_name=name,
        classes=table.classes,
        scaler=fitted.scaler,
        calibration=calibration,
        ood=OODScore.learn(
            table, fitted.scaler, trained_on, np.setdiff1d(chosen_on, trained_on, assume_unique=True), seed
        ),
        inputs=inputs_of(table),
        trained_on=contents_of(table, trained_on),
        chosen_on=table.item_ids[chosen_on],
        views=views,
    )


def _of_known_classes(table: Features, rows: Parts) -> tuple[Parts, list[str]]:
    """Leave rows whose class no training row has out of validation and test, and say so: no head can be right there."""
    known = np.unique(table.y[rows.train])
    kept, said = {"train": rows.train}, []
    for name in ("val", "test"):
        positions = getattr(rows, name)
        strange = ~np.isin(table.y[positions], known)
        kept[name] = positions[~strange]
        for label in np.unique(table.y[positions[strange]]).tolist():
            n = int((table.y[positions] == label).sum())
            said.append(
                f"{n:,} {name} rows are of class {table.classes[label]!r}, which no training row has: "
                f"they are left out of the {name} accuracy."
            )
    return Parts(**kept), said


def _with_classes_of_train(model: Model) -> Model:
    """Return `model` without classes that no training row has; heads of others keep them, with probability 0."""
    known = np.asarray(model.head.classes_)
    if len(known) == len(model.classes) or not is_exportable(model.head):
        return model
    head = copy.copy(model.head)
    head.classes_ = np.arange(len(known))
    return dataclasses.replace(model, head=head, classes=tuple(model.classes[code] for code in known.tolist()))


def _leaks(table: Features, rows: Parts) -> list[str]:
    """Warn of identical images, and of groups, among rows that teach and rows that are scored."""
    part = np.full(len(table), "", dtype="<U5")
    for name in ("train", "val", "test"):
        part[getattr(rows, name)] = name
    return split_warnings(table.item_ids, part, table.ids.tolist(), table.groups)


def _views(table: Features, n: int | None) -> Views | None:
    """Return the first `n` views of `table`, all by default; None for the plain one alone."""
    if table.recipe is not None and table.recipe.view is not None:
        raise DataError(f"{table.path} holds an augmented view. Fit on the table of the images, which names its views.")
    if table.augmentation is None or n == 1:
        if (n or 1) > 1:
            raise OptionError(
                f"The table has no augmented views. Add them: featx extract DATA --views {n} --augment light"
            )
        return None
    return dataclasses.replace(table.augmentation, n=n or table.views)


def _make_head(head: Any, settings: dict[str, Any], seed: int, task: str) -> tuple[str, Any]:
    """Return the name and an unfitted copy of a head, seeded where it draws anything."""
    if isinstance(head, str):
        name, estimator = head, make_head(head, task=task, **settings)
    elif settings:
        raise OptionError("settings belong to a head given by name; set those of an instance on the instance.")
    else:
        name, estimator = type(head).__name__, clone(head)
    if estimator.get_params().get("random_state", seed) is None:
        estimator.set_params(random_state=seed)
    return name, estimator


def _check_numbers(table: Features, positions: NDArray[np.intp]) -> None:
    """Find the row that is no row of numbers. Tables in files were checked when they were made."""
    if all(part.path is not None for part in table.tables):
        return
    for where, X in table.select(positions).blocks():
        bad = ~np.isfinite(X).reshape(len(X), -1).all(axis=1)
        if bad.any():
            row = positions[where[bad.argmax()]]
            raise DataError(f"Row {row} ({table.ids[row]}) of the features holds NaN or infinity. Leave it out.")


def _choosing(name: str, estimator: Any, how: Fit, task: str, val: NDArray[Any]) -> Any:
    """Return the head that chooses its penalty by itself, where `settings` name none and it can.

    `val` are the targets of the validation rows, (n, …): their mean average precision chooses where they are labels.
    """
    settings = how.settings or {}
    if name == "logreg" and "C" not in settings and len(val):
        # Where no row has any label, that is of no rank, and the share of rightly absent ones is all there is.
        usual = metric_of(task).name if task == "classify" or val.any() else "accuracy"
        return make_head("logreg-cv", task=task, scoring=how.metric or usual, **settings)
    if name == "ridge" and task == "regress" and "alpha" not in settings:
        return estimator.set_params(alpha=_ALPHAS)
    return estimator


def _own_choice(estimator: Any, head: Any) -> dict[str, Any]:
    """Return what a fitted `head` chose by itself: values that were not simply given."""
    fitted = {name: getattr(head, f"{name}_") for name in _CHOSEN if hasattr(head, f"{name}_")}
    given = estimator.get_params()
    return {name: value for name, value in fitted.items() if np.ndim(value) == 0 and not _same(given.get(name), value)}


def _rounds(head: Any) -> dict[str, int]:
    """Return how many rounds validation left of a boosted head."""
    return {"n_estimators": head.best_iteration_ + 1} if isinstance(head, XGBoostHead | XGBoostRegressor) else {}


def _same(given: Any, chosen: Any) -> bool:
    return np.ndim(given) == 0 and bool(given == chosen)


def _path(head: Any) -> list[dict[str, float]] | None:
    """Return each C that a head tried by itself, with its mean score."""
    if not hasattr(head, "Cs_"):
        return None
    return [{"C": C, "score": score} for C, score in zip(head.Cs_.tolist(), head.scores_.mean(0).tolist(), strict=True)]


def as_chosen(estimator: Any, choice: dict[str, Any]) -> Any:
    """Return an unfitted head that takes the choice of a fitted `estimator` instead of choosing again."""
    if not isinstance(estimator, LogisticHeadCV):
        return clone(estimator).set_params(**choice)
    shared = {key: value for key, value in estimator.get_params().items() if hasattr(LogisticHead(), key)}
    return LogisticHead(**shared, **choice)


def _paths(table: Features) -> tuple[str, ...]:
    """Return the files that stand side by side in `table`; none where it is one, or one of them is in memory."""
    paths = [part.path for part in table.tables]
    return tuple(map(str, paths)) if len(paths) > 1 and all(paths) else ()
