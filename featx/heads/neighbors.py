"""Heads that hold rows against rows: exact nearest neighbours, and `CentroidHead`, nearest class means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from featx.devices import resolve_device, within_memory
from featx.heads.estimator import Head, Regressor
from featx.heads.inputs import Samples, read_rows, read_training
from featx.heads.linear import softmax
from featx.heads.losses import module_of, to_numpy
from featx.heads.moments import class_sums
from featx.heads.targets import Array, ClassWeight, class_weights
from featx.settings import check_choice, check_number

#: Queries answered at a time.
QUERIES = 1024

#: Similarities held at a time, queries times training rows: 16 MiB, which processors' caches hold.
TILE = 1 << 22

#: The same on a GPU: 256 MiB.
GPU_TILE = 1 << 26


class _FittedNeighbors:
    """What a fit finds; `KNNHead` documents it."""

    n_features_in_: int
    units_: Any


@dataclass(eq=False, repr=False)
class _Neighbors(_FittedNeighbors):
    """What heads share that let the nearest training rows vote; `KNNHead` documents it."""

    k: int = 20
    _: KW_ONLY
    weights: str = "softmax"
    temperature: float = 0.07
    device: str = "auto"

    def _remember(self, X: Any, y: Any, memory: int | str | None) -> Array:
        """Keep X (n, d) or Features as rows of length 1, and return their targets."""
        check_number("k", self.k, least=1, whole=True)
        check_choice("weights", self.weights, ("softmax", "uniform"))
        check_number("temperature", self.temperature, above=0)
        training = read_training(self, X, y, memory=memory)
        self.units_ = unit_rows(training.source) if isinstance(training.source, np.ndarray) else training
        return training.targets

    @property
    def _n_rows(self) -> int:
        return len(self.units_)

    def kneighbors(self, X: Any, k: int | None = None) -> tuple[Array, NDArray[np.int64]]:
        """Return cosine similarities (n, k), largest first, and row numbers (n, k) of the nearest training rows."""
        check_is_fitted(self)
        k = min(k or self.k, self._n_rows)
        rows = read_rows(self, X)
        n_values = max(len(rows), self._n_rows) * self.n_features_in_
        device = resolve_device(self.device, "device", n_values=n_values)
        return within_memory(lambda *where: self._search(rows.on(*where), k), device)

    def _search(self, rows: Samples, k: int) -> tuple[Array, NDArray[np.int64]]:
        """Return what `kneighbors` does, from the device where `rows` are given."""
        units = self.units_
        if rows.n_parts == 1 and isinstance(units, np.ndarray):
            units = rows.placed(units)
        # Few enough queries at a time that their similarities to a tile of rows stay small.
        blocks = rows.blocks(QUERIES * rows.row_bytes)
        found = [self._nearest(rows, unit_rows(block), units, k) for _, block in blocks]
        return np.concatenate([s for s, _ in found]), np.concatenate([i for _, i in found])

    def _votes(self, similarities: Array) -> Array:
        """Return the share of each neighbour in the vote, shape (n, k), the most similar first."""
        votes = np.ones_like(similarities)
        if self.weights == "softmax":
            votes = np.exp((similarities - similarities[:, :1]) / self.temperature)
        return np.asarray(votes / votes.sum(axis=1, keepdims=True))

    def _nearest(self, rows: Samples, queries: Array, units: Any, k: int) -> tuple[Array, NDArray[np.int64]]:
        """Return the k largest similarities and their rows, merged over tiles of the training rows."""
        best = np.full((len(queries), k), -np.inf, rows.dtype)
        where = np.zeros((len(queries), k), np.int64)
        tile = TILE if rows.device == "cpu" else GPU_TILE // rows.n_parts
        for start, some in _tiles(units, max(k, tile // max(1, len(queries)))):
            similarities = queries @ (rows.placed(some) if isinstance(some, np.ndarray) else some).T
            if not start and len(some) > k:
                best, where = _first(similarities, k)
                continue
            found, columns, values = _above(rows.placed(best[:, -1:]), similarities)
            if len(found):
                best, where = _merged(best, where, found, values, columns + start)
        return best, where


def _mean_of(targets: Array, votes: Array, indices: NDArray[np.int64]) -> Array:
    """Return the mean over neighbours (n, k) of their targets (n_train, t), shape (n, t)."""
    mean = np.zeros((len(votes), targets.shape[1]), np.result_type(votes, np.float32))
    for vote, index in zip(votes.T, indices.T, strict=True):  # neighbour by neighbour: all at once are k times as much
        mean += vote[:, None] * targets[index]
    return mean


@dataclass(eq=False, repr=False)
class KNNHead(_Neighbors, Head):
    """Vote of the k nearest training rows, by cosine similarity; exact.

    Of several labels a row, y (n, t) of 0 or 1, each is voted on.

    Parameters
    ----------
    k : int
        Neighbours that vote; all rows where there are fewer.
    weights : {"softmax", "uniform"}
        ``softmax`` gives a neighbour exp(similarity / temperature), as in DINO (Caron et al., "Emerging
        properties in self-supervised vision transformers", 2021); ``uniform`` one vote each.
    temperature : float
        For ``softmax``.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where rows are held against rows.
    class_weight : dict, "balanced" or None
        Multiplies the votes of each class; ``balanced`` divides them by the number of its training rows, of several
        labels a row by that of rows with and without each.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    units_ : ndarray of shape (n, d)
        Samples rows of length 1. A table above the memory limit is kept as it is and read at each prediction.
    codes_ : ndarray of int64, shape (n,), or of int8, shape (n, t)
        Index of each training row's label in ``classes_``; or its labels.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> round(KNNHead(k=5).fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]), 2)
    0.96
    """

    class_weight: ClassWeight = None

    takes_labels: ClassVar[bool] = True

    def fit(self, X: Any, y: Any = None, *, memory: int | str | None = None) -> Self:
        """Remember X (n, d) or Features with labels y (n,); see `featx.heads.inputs.read_training`."""
        self.codes_ = self._remember(X, y, memory)
        self.class_weights()  # refuses what they cannot be
        return self

    def class_weights(self) -> NDArray[np.float64]:
        """Return what the votes of each class are multiplied by, (n_classes,), or those for 0 and 1, (2, t)."""
        return class_weights(self.class_weight, self.classes_, self.codes_, np.ones(len(self.codes_)))

    def predict_proba(self, X: Any) -> Array:
        """Return each class's share of the weighted votes, shape (n, n_classes); of several labels those for each."""
        return self.shares(*self.kneighbors(X))

    def predict(self, X: Any) -> Array:
        """Return the label with the largest share of votes, shape (n,); of several those of more than half, (n, t)."""
        shares = self.predict_proba(X)
        return self._decided(shares - 0.5 if self.multilabel_ else shares)

    def predict_left_out(self, X: Any, rows: NDArray[np.intp], groups: NDArray[np.intp] | None = None) -> Array:
        """Return labels for training rows X (m, d), shape (m,), each by the vote of rows of other groups than its own.

        Parameters
        ----------
        X : array-like of shape (m, d), or Features
        rows : ndarray of int, shape (m,)
            Which training row each of them is.
        groups : ndarray of int, shape (n_train,), optional
            Group of each training row, for example the image that it is a view of; by default each is alone.
        """
        groups = np.arange(len(self.codes_)) if groups is None else np.unique(groups, return_inverse=True)[1]
        largest = int(np.bincount(groups).max())
        similarities, indices = self.kneighbors(X, self.k + largest)
        others = groups[indices] != groups[np.asarray(rows)][:, None]
        shape = (len(indices), min(self.k, indices.shape[1] - largest))
        others &= others.cumsum(axis=1) <= shape[1]  # the nearest of them; at least so many are there
        codes = self.shares(similarities[others].reshape(shape), indices[others].reshape(shape)).argmax(axis=1)
        labels: Array = self.classes_[codes]
        return labels

    def shares(self, similarities: Array, indices: NDArray[np.int64]) -> Array:
        """Return each class's share of the votes of given neighbours, shape (n, n_classes).

        Parameters
        ----------
        similarities, indices : ndarray, shape (n, k)
            As from `kneighbors`, the most similar first.
        """
        votes = self._votes(similarities)
        weights = self.class_weights().astype(votes.dtype)
        if self.multilabel_:
            shares = _mean_of(self.codes_, votes, indices)
            if self.class_weight is None:
                return shares
            without, having = (1 - shares) * weights[0], shares * weights[1]
            return np.asarray(having / np.maximum(without + having, np.finfo(shares.dtype).tiny))
        shares = np.zeros((len(votes), len(self.classes_)), votes.dtype)
        np.add.at(shares, (np.arange(len(votes))[:, None], self.codes_[indices]), votes)
        if self.class_weight is None:
            return shares
        shares *= weights
        return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(shares.dtype).tiny))


@dataclass(eq=False, repr=False)
class KNNRegressor(_Neighbors, Regressor):
    """Mean of the k nearest training rows, by cosine similarity; exact.

    Parameters
    ----------
    k, weights, temperature, device
        As in `KNNHead`: what counts as a vote there is a weight of the mean here.

    Attributes
    ----------
    n_outputs_ : int
        t, numbers a row.
    units_ : ndarray of shape (n, d)
        As in `KNNHead`.
    targets_ : ndarray of float64, shape (n, t)
        Numbers of the training rows.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> round(KNNRegressor(k=20, weights="uniform").fit(X[:300], y[:300]).score(X[300:], y[300:]), 2)
    0.52
    """

    def fit(self, X: Any, y: Any = None, *, memory: int | str | None = None) -> Self:
        """Remember X (n, d) or Features with numbers y (n,) or (n, t); see `featx.heads.inputs.read_training`."""
        self.targets_ = self._remember(X, y, memory)
        return self

    def predict(self, X: Any) -> Array:
        """Return numbers, shape (n,), or (n, t) for several."""
        similarities, indices = self.kneighbors(X)
        found = _mean_of(self.targets_, self._votes(similarities).astype(np.float64), indices)
        return found[:, 0] if self.n_outputs_ == 1 else found


@dataclass(kw_only=True, eq=False, repr=False)
class CentroidHead(Head):
    """Nearest class mean; one pass over the rows.

    Parameters
    ----------
    metric : {"cosine", "euclidean"}
        With cosine, rows are scaled to length 1 before they are averaged, and so are the means.
    temperature : float
        Divides the similarities in `predict_proba`.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where the fit computes. Prediction needs numpy alone.

    Attributes
    ----------
    centroids_ : ndarray of shape (k, d)
    classes_ : ndarray of shape (k,)

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> round(CentroidHead().fit(X, y).score(X, y), 2)
    0.91
    """

    metric: str = "cosine"
    temperature: float = 0.07
    device: str = "auto"

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, memory: int | str | None = None) -> Self:
        """Fit on X (n, d) or Features, labels y (n,) and weights (n,); see `featx.heads.inputs.read_training`."""
        check_choice("metric", self.metric, ("cosine", "euclidean"))
        check_number("temperature", self.temperature, above=0)
        training = read_training(self, X, y, sample_weight, memory=memory)
        k = len(self.classes_)

        def sums_on(*where: Any) -> Array:
            return class_sums(training.on(*where), *([unit_rows] if self.metric == "cosine" else []))

        sums = within_memory(sums_on, training.device_for(self.device))
        totals = np.bincount(training.targets, training.weights, minlength=k)[:, None]
        means = sums / np.maximum(totals, np.finfo(float).tiny)
        self.centroids_ = (unit_rows(means) if self.metric == "cosine" else means).astype(training.dtype)
        return self

    def decision_function(self, X: Any) -> Array:
        """Return similarities (n, k), or their difference (n,) for two classes.

        With cosine, the cosines; else minus the squared distances, up to a number that all classes of a row share.
        """
        check_is_fitted(self)
        scores = np.concatenate([self._similarities(block) for _, block in read_rows(self, X).blocks()])
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: Any) -> Array:
        """Return the label of each row, shape (n,)."""
        return self._decided(self.decision_function(X))

    def predict_proba(self, X: Any) -> Array:
        """Return the softmax of similarities over `temperature`, shape (n, k): ranked like them, not calibrated."""
        return softmax(self.decision_function(X) / self.temperature)

    def _similarities(self, block: Array) -> Array:
        products = (unit_rows(block) if self.metric == "cosine" else 2 * block) @ self.centroids_.T
        # ‖x‖² is the same for every class, and is left out of the squared distance.
        similarities: Array = products - (0 if self.metric == "cosine" else (self.centroids_**2).sum(axis=1))
        return similarities


def unit_rows(X: Array) -> Array:
    """Return rows scaled to Euclidean length 1; rows of zeros stay zero.

    Examples
    --------
    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    xp = module_of(X)
    lengths = xp.sqrt(xp.einsum("nd,nd->n", X, X))[:, None]
    units: Array = X / xp.where(lengths > 0, lengths, 1)
    return units


def _tiles(units: Array | Samples, step: int) -> Iterator[tuple[int, Array]]:
    """Yield (first row number, unit rows)."""
    if isinstance(units, Samples):
        for indices, block in units.blocks():
            yield int(indices[0]), unit_rows(block)
        return
    for start in range(0, len(units), step):
        yield start, units[start : start + step]


def _first(similarities: Any, k: int) -> tuple[Array, NDArray[np.int64]]:
    """Return the k largest of each row and their columns."""
    if not isinstance(similarities, np.ndarray):
        largest, near = similarities.topk(k)
        return _sorted(to_numpy(largest), to_numpy(near))
    near = np.argpartition(similarities, similarities.shape[1] - k, axis=1)[:, -k:]
    return _sorted(np.take_along_axis(similarities, near, axis=1), near)


def _above(limits: Array, similarities: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Return rows, columns and values of what is above its row's limit: ten times as quick as partitioning."""
    # In one dimension numpy finds what is not zero ten times as fast.
    places = module_of(similarities).argwhere((similarities > limits).ravel())[:, 0]
    rows, columns = np.divmod(to_numpy(places), similarities.shape[1])
    return rows, columns, to_numpy(similarities.ravel()[places])


def _sorted(similarities: Array, indices: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Return each row in descending order of similarity, of equals the lower index first."""
    order = np.lexsort((indices, -similarities), axis=1)
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(indices, order, 1)


def _merged(
    best: Array, where: NDArray[np.int64], rows: NDArray[np.int64], similarities: Array, indices: NDArray[np.int64]
) -> tuple[Array, NDArray[np.int64]]:
    """Return the best (n, k) and where they are, with candidates of ascending `rows` taken in."""
    counts = np.bincount(rows, minlength=len(best))
    # Each row's candidates side by side; rows with fewer than others are filled up with what never wins.
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    more = np.full((len(best), counts.max()), -np.inf, best.dtype)
    at = np.zeros(more.shape, np.int64)
    more[rows, place], at[rows, place] = similarities, indices
    merged = _sorted(np.concatenate([best, more], 1), np.concatenate([where, at], 1))
    k = best.shape[1]
    return merged[0][:, :k], merged[1][:, :k]
