"""Which rows can be more similar to a query than a limit: products in eight bits, and a bound on what they miss.

Processors multiply eight-bit integers several times as fast as floats. With a query q and a row m + u, m the mean of
its block, R orthogonal, and q̂, û what eight bits keep of Rq and Ru:

    q·(m + u) - q·m = Rq·Ru ≤ q̂·û + ‖Rq - q̂‖ ‖u‖ + ‖q̂‖ ‖Ru - û‖     (Cauchy-Schwarz)

so a row whose right-hand side is below the limit needs no float product. R is random signs and a cosine transform:
it spreads what a row holds evenly over its columns, and so keeps the step between eight-bit levels small.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from featx.heads.inputs import Array
from featx.heads.solver import as_tensor

if TYPE_CHECKING:
    from torch import Tensor

#: Widths for which eight-bit products pay, and whose sums 32 bits hold.
COLUMNS = range(64, 1 << 17)

#: Rows a block: few enough that what is computed of them stays in processors' caches.
ROWS = 2048

#: Largest number of eight bits that is used, either way.
LEVELS = 127

#: A float product of all pairs costs less than those of the pairs left where more than one of so many are left.
WORTHWHILE = 32


@dataclass(frozen=True)
class Levels:
    """Rows R(x - mean) in eight bits.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    codes : Tensor of int8, shape (n, d)
    step : Tensor, shape (n, 1) or (1, 1)
        What a code of 1 stands for.
    lengths, errors : Tensor, shape (n, 1)
        Euclidean length of x - mean, and of what eight bits lose of it.
    """

    mean: Array
    codes: Tensor
    step: Tensor
    lengths: Tensor
    errors: Tensor

    @classmethod
    def of_block(cls, X: Array) -> Levels:
        """Return rows (n, d) about their mean, all with one step, so that their products compare as integers."""
        import torch

        mean = X.mean(axis=0)
        spread = _spread(X - mean)
        return cls._rounded(mean, spread, torch.linalg.vector_norm(spread, math.inf).reshape(1, 1))

    @classmethod
    def of_queries(cls, X: Array) -> Levels:
        """Return rows (n, d) as they are, each with its own step."""
        import torch

        spread = _spread(X)
        return cls._rounded(np.zeros_like(X[0]), spread, torch.linalg.vector_norm(spread, math.inf, 1, keepdim=True))

    @classmethod
    def _rounded(cls, mean: Array, spread: Tensor, largest: Tensor) -> Levels:
        import torch

        step = largest.clamp(min=torch.finfo(spread.dtype).tiny * LEVELS) / LEVELS
        kept = (spread / step).round_()
        codes, lengths = kept.to(torch.int8), torch.linalg.vector_norm(spread, dim=1, keepdim=True)
        errors = torch.linalg.vector_norm(spread.sub_(kept.mul_(step)), dim=1, keepdim=True)
        return cls(mean, codes, step, lengths, errors)


def pairs_above(
    limits: Array, queries: Array, units: Array, asked: Levels, block: Levels
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array] | None:
    """Return query numbers, row numbers and similarities of the pairs that are above the query's limit.

    Parameters
    ----------
    limits : ndarray, shape (m,)
    queries, units : ndarray, shape (m, d) and (n, d)
        Of length 1 at most.
    asked, block : Levels
        Of `queries`, and of `units`.

    Returns
    -------
    tuple of ndarray, each of shape (n_pairs,), or None
        Ordered by query, then by row. None where eight bits rule out so little that products of all cost less.
    """
    import torch

    means = products(queries, block.mean[None])
    above = torch.from_numpy(limits[:, None] - means)
    missed = asked.errors * block.lengths.amax() + (asked.lengths + asked.errors) * block.errors.amax()
    rounding = queries.shape[1] * torch.finfo(above.dtype).eps  # of products of rows of length 1
    least = (above - missed - rounding) / (asked.step * block.step)
    sums = torch._int_mm(asked.codes, block.codes.T)  # noqa: SLF001 - torch has no public product of int8
    left = sums > least.floor_().clamp_(-(2**31), 2**31 - 128).to(torch.int32)
    pairs = np.flatnonzero(left.numpy())
    if WORTHWHILE * len(pairs) > left.numel():
        return None
    rows, columns = np.divmod(pairs, left.shape[1])
    similarities = _similarities(queries, units, rows, columns)
    kept = similarities > limits[rows]
    return rows[kept], columns[kept], similarities[kept]


def products(queries: Array, units: Array) -> Array:
    """Return queries · unitsᵀ (m, n) by torch.

    Numpy's threads spin on for a while after a product, on the cores that torch's next one needs: that doubled the
    time of a search.
    """
    found: Array = (as_tensor(queries, "cpu") @ as_tensor(units, "cpu").T).numpy()
    return found


def _similarities(queries: Array, units: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """Return queries[rows] · units[columns], shape (n_pairs,), of pairs ordered by `rows`."""
    import torch

    starts = np.searchsorted(rows, np.arange(len(queries) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse tensors a beta, and these unchecked
        pattern = torch.sparse_csr_tensor(
            torch.from_numpy(starts),
            torch.from_numpy(columns),
            torch.from_numpy(np.zeros(len(columns), queries.dtype)),
            size=(len(queries), len(units)),
        )
        found = torch.sparse.sampled_addmm(pattern, as_tensor(queries, "cpu"), as_tensor(units, "cpu").T, beta=0.0)
    similarities: Array = found.values().numpy()
    return similarities


@cache
def eight_bits_are_exact() -> bool:
    """Whether this processor sums eight-bit products without loss: those without VNNI saturate at 16 bits."""
    import torch

    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False  # elsewhere they are not quick
    d = COLUMNS.start
    extreme = torch.full((16, d), LEVELS, dtype=torch.int8)
    return bool((torch._int_mm(extreme, extreme.T) == d * LEVELS**2).all())  # noqa: SLF001 - as above


def _spread(X: Array) -> Tensor:
    """Return RX for rows (n, d)."""
    import torch

    signs = np.random.default_rng(0).choice(np.array([-1, 1], X.dtype), X.shape[1])
    signed = X * signs
    return torch.from_numpy(fft.dct(signed, axis=1, norm="ortho", overwrite_x=True, workers=torch.get_num_threads()))
