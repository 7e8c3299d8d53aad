"""Which of many fitted models speak together, and how much each counts: greedy selection on rows held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.model.rows import row_groups
from featx.model.scores import LEAST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featx.features import Features
    from featx.targets import Targets

    Floats = NDArray[np.float64]

#: Draws of held-out rows that each select once; the weights are the means over them.
DRAWS = 20
#: Models that a selection takes, with replacement.
ROUNDS = 25
#: A model that counts less is left out.
LEAST_WEIGHT = 0.03


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that models were not fitted on, and the truth about them.

    Attributes
    ----------
    task : {"classify", "multilabel", "regress"}
    truth : ndarray
        Class of each row, int of shape (n,), or its labels or numbers, float of shape (n, t).
    groups : ndarray of int, shape (n,)
        Rows of one group are drawn together.
    balanced : bool
        Whether each class counts alike, whatever its rows.
    """

    task: str
    truth: NDArray[np.float64 | np.intp]
    groups: NDArray[np.intp]
    balanced: bool = False

    @classmethod
    def of(
        cls, table: Features, positions: NDArray[np.intp], targets: Targets | None, *, balanced: bool = False
    ) -> Held:
        """Return the rows of a table at `positions`, with what `targets` say of them, or their classes."""
        truth = table.y[positions] if targets is None else targets.array[positions].astype(np.float64)
        return cls("classify" if targets is None else targets.task, truth, row_groups(table, positions), balanced)

    @property
    def shares(self) -> Floats:
        """How much each row counts, shape (n,); the sum is 1."""
        if not self.balanced:
            return np.full(len(self.truth), 1 / len(self.truth))
        _, codes, sizes = np.unique(self.truth, return_inverse=True, return_counts=True)
        return np.asarray(1 / sizes[codes] / len(sizes))

    def said(self, outputs: Floats) -> Floats:
        """Return what decides the loss of outputs (n, k) of a model, and can be averaged over models, shape (n, e).

        That is the probability of the true class, that of the truth of each label, or how far numbers are off, in
        standard deviations.
        """
        if self.task == "classify":
            return outputs[np.arange(len(outputs)), self.truth.astype(np.intp)][:, None]
        if self.task == "multilabel":
            return np.where(self.truth == 1, outputs, 1 - outputs)
        spread = self.truth.std(axis=0)
        return np.asarray((outputs - self.truth) / np.where(spread > 0, spread, 1))

    def losses(self, said: Floats) -> Floats:
        """Return the loss of each row of what was `said` (…, n, e), shape (…, n): −log p, or the squared distance."""
        each = said**2 if self.task == "regress" else -np.log(np.clip(said, LEAST, None))
        return np.asarray(each.mean(axis=-1))

    def loss(self, outputs: Floats) -> float:
        """Return the mean loss of outputs (n, k)."""
        return float(self.losses(self.said(outputs)) @ self.shares)

    def weights(self, outputs: list[Floats], seed: int) -> Floats:
        """Return how much each of several models counts, so that all together are best: see `greedy_weights`."""
        said, shares = np.stack([self.said(one) for one in outputs]), self.shares
        rng, n_groups = np.random.default_rng(seed), int(self.groups.max()) + 1
        total = np.zeros(len(said))
        for _ in range(DRAWS):
            drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups))[self.groups] * shares
            total += greedy_weights(self, said, drawn / drawn.sum())
        total = np.where(total >= LEAST_WEIGHT * total.sum(), total, 0)
        weights = total / total.sum()
        best = np.eye(len(said))[(self.losses(said) @ shares).argmin()]
        together, alone = (
            float(self.losses(np.tensordot(weight, said, 1)) @ shares) for weight in (weights, best)
        )  # one that is not worse by itself needs no others
        return np.asarray(weights if together < alone else best)


def greedy_weights(held: Held, said: Floats, share: Floats) -> Floats:
    """Return the weights (m,) of models, by greedy selection with replacement.

    The model joins whose vote lowers the loss most, again and again; the same one may join several times. Of all sizes
    on the way the best is taken.

    Parameters
    ----------
    held : Held
    said : ndarray of shape (m, n, e)
        Of each model, from `Held.said`.
    share : ndarray of shape (n,)
        How much each row counts; the sum is 1.

    Notes
    -----
    R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble selection from libraries of models", ICML 2004, with
    its guard against choosing by chance: selections on several draws of the rows, averaged.
    """
    counts, total = np.zeros(len(said)), np.zeros(said.shape[1:])
    best, lowest = counts, np.inf
    for n in range(1, ROUNDS + 1):
        losses = held.losses((total + said) / n) @ share
        chosen = int(losses.argmin())
        counts = counts + np.eye(len(said))[chosen]
        total = total + said[chosen]
        if losses[chosen] < lowest - 1e-9:
            best, lowest = counts / n, float(losses[chosen])
    return best
