"""Which rows are for training, validation and test: names, the validation part, and images in two of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from featx.datasets.dataset import UNLABELLED, Dataset
from featx.errors import DataError, OptionError

_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_IN_PATH = re.compile(rf"(?:^|[-_./])({'|'.join(_NAMES)})(?=[-_./]|$)", re.IGNORECASE)
_ORDER = ("train", "val", "test")


def split_name(word: str) -> str | None:
    """Return ``train``, ``val`` or ``test`` for a folder or cell that means it, whatever its case; else None.

    Examples
    --------
    >>> split_name("Validation"), split_name("cats")
    ('val', None)
    """
    return _NAMES.get(word.lower())


def split_in_path(path: str) -> str:
    """Return the split that the last fitting word of a path names, empty if none does.

    Examples
    --------
    >>> split_in_path("data/validation-00000-of-00002.parquet"), split_in_path("contest.tar")
    ('val', '')
    """
    found = _IN_PATH.findall(path)
    return _NAMES[found[-1].lower()] if found else ""


def no_splits(n: int) -> np.ndarray:
    """Return the splits of `n` rows that are in none."""
    return np.full(n, "", dtype="<U5")


def hold_out(dataset: Dataset, val: str, *, seed: int = 0) -> np.ndarray:
    """Take a validation part from the training rows.

    Parameters
    ----------
    dataset : Dataset
        Training rows are those of split ``train``, or, where no row is, those in no split.
    val : str
        ``"0.1"``: a tenth of each class, chosen by `seed` and the rows' ids, so that images which are added
        later move (almost) none of the others; rows without a label stay in training. ``"last:0.1"``: the
        last tenth in order.
    seed : int
        Another seed chooses other rows.

    Returns
    -------
    ndarray of str, shape (n,)
        New splits: chosen rows are ``val``, the other training rows ``train``, all others as they were.

    Raises
    ------
    OptionError
        If `val` is not of that form.
    DataError
        If there are too few rows to take any from.
    """
    last, fraction = _parse(val)
    splits = dataset.splits.astype(np.dtype(f"<U{max(5, dataset.splits.dtype.itemsize // 4)}"))
    train = np.flatnonzero(splits == ("train" if "train" in splits else ""))
    tail = len(train) - round(fraction * len(train))
    chosen = train[tail:] if last else _stratified(dataset, train, fraction, seed)
    if len(chosen) == 0:
        raise DataError(f"--val {val} of {len(train):,} training images is none. Take a larger part: --val 0.5")
    splits[train] = "train"
    splits[chosen] = "val"
    return splits


def _parse(val: str) -> tuple[bool, float]:
    word, colon, number = val.rpartition(":")
    try:
        fraction = float(number)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction < 1 or (colon and word != "last"):
        raise OptionError(f"--val must be a part between 0 and 1, as 0.1 or last:0.1; got {val!r}.")
    return bool(colon), fraction


def _stratified(dataset: Dataset, train: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Take, in each class, the rows whose hashed ids come first."""
    draws = np.array([_draw(seed, dataset.ids[i]) for i in train])
    labels = dataset.labels[train]
    order = np.lexsort((draws, labels))
    chosen = [train[:0]]
    for label, rows in zip(*_groups(labels[order], order), strict=True):
        if label != UNLABELLED:
            # Rounded up or down by the class's own draw: many small classes together still give the fraction.
            n = int(fraction * len(rows) + _draw(seed, f"class {dataset.classes[label]}"))
            chosen.append(train[rows[: min(n, len(rows) - 1)]])
    return np.sort(np.concatenate(chosen))


def _draw(seed: int, text: str) -> float:
    """Return a number in [0, 1) that depends on nothing but seed and text."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {text}".encode(), digest_size=6).digest()) / 2**48


def _groups(labels: np.ndarray, rows: np.ndarray) -> tuple[list[int], list[np.ndarray]]:
    """Cut `rows` where the sorted `labels` change."""
    values, starts = np.unique(labels, return_index=True)
    return values.tolist(), np.split(rows, starts[1:])


def shared_across_splits(item_ids: np.ndarray, splits: np.ndarray, ids: Sequence[str]) -> list[str]:
    """Warn of identical images in different splits: a classifier that was trained on one knows the other.

    Parameters
    ----------
    item_ids : ndarray of uint8, shape (n, 32)
        Content hashes; all zero for images that could not be read.
    splits : ndarray of str, shape (n,)
        Rows of the empty split are left out.
    ids : sequence of str, length n
        What to call the images.

    Returns
    -------
    list of str
        A sentence for each pair of splits that have images in common, with their number and an example.

    Examples
    --------
    >>> hashes = np.repeat(np.array([[1], [2], [1]], np.uint8), 32, axis=1)
    >>> shared_across_splits(hashes, np.array(["train", "train", "test"]), ["a.jpg", "b.jpg", "c.jpg"])
    ['1 image is in train and in test, for example a.jpg = c.jpg: scores on test are too good.']
    """
    rows = np.flatnonzero((splits != "") & item_ids.any(axis=1))
    names = sorted(set(splits[rows].tolist()), key=lambda name: (_ORDER.index(name) if name in _ORDER else 3, name))
    keys = np.ascontiguousarray(item_ids[rows]).view("S32").ravel()
    contents, inverse = np.unique(keys, return_inverse=True)
    where = np.full((len(names), len(contents)), -1)
    for k, name in enumerate(names):
        in_split = np.flatnonzero(splits[rows] == name)[::-1]  # the first of equal images is written last
        where[k, inverse[in_split]] = rows[in_split]
    sentences = []
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            both = (where[a] >= 0) & (where[b] >= 0)
            if both.any():
                pair = min(zip(where[a, both].tolist(), where[b, both].tolist(), strict=True))
                sentences.append(_warning(int(both.sum()), names[a], names[b], ids[pair[0]], ids[pair[1]]))
    return sentences


def _warning(n: int, a: str, b: str, one: str, other: str) -> str:
    images = "1 image is" if n == 1 else f"{n:,} images are"
    return f"{images} in {a} and in {b}, for example {one} = {other}: scores on {b} are too good."
