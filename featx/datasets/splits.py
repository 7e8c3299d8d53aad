"""Which rows are for training, validation and test: by folders, by the one validation draw; images in two of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.errors import OptionError

_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_IN_PATH = re.compile(rf"(?:^|[-_./])({'|'.join(_NAMES)})(?=[-_./]|$)", re.IGNORECASE)
_ORDER = ("train", "val", "test")
_UNLABELLED_WORDS = {"unknown", "unlabelled", "unlabeled", "pred", "predict", "prediction", "predictions"}
#: Folders that are no class where a split has nothing else.
_NO_CLASS = _UNLABELLED_WORDS | {"test", "testing", "images"}
_WORDS_BESIDE = re.compile(r"[-_. ]")
#: Scores on fewer images than this say little.
FEWEST_VALIDATION = 20


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


#: Share of the training rows that validates where nobody says otherwise.
DEFAULT_VAL = "0.1"


@dataclass(frozen=True)
class ValidationShare:
    """How many of the training rows are to validate, and how they are found.

    Attributes
    ----------
    fraction : float
        At least 0, below 1.
    last : bool
        Take the last rows in order instead of drawing some.
    seed : int
        Another seed draws other rows.
    """

    fraction: float
    last: bool = False
    seed: int = 0

    @classmethod
    def parse(cls, val: str | float, seed: int = 0) -> ValidationShare:
        """Read ``--val``: ``0.1`` for a draw, ``last:0.1`` for the last rows, 0 for none.

        Raises
        ------
        OptionError
            If `val` is not of that form.
        """
        word, colon, number = str(val).rpartition(":")
        try:
            fraction = float(number)
        except ValueError:
            fraction = -1.0
        if not 0 <= fraction < 1 or (colon and word != "last"):
            raise OptionError(f"--val must be a part between 0 and 1, as 0.1 or last:0.1; got {str(val)!r}.")
        return cls(fraction, bool(colon), seed)

    def __str__(self) -> str:
        return f"{'last:' if self.last else ''}{self.fraction:g}"


def draw_validation(
    share: ValidationShare,
    *,
    splits: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    item_ids: np.ndarray | None,
    ids: Sequence[str] | np.ndarray | None = None,
) -> np.ndarray:
    """Take validation rows from the training rows: the only such draw, for a data set as for a table of features.

    Of each class the distinct images with the lowest numbers are taken, where an image's number is a hash of its
    content and the seed. So the order of rows and their names do not matter, images that are added later move
    (almost) none of the others, and identical images are all taken or all left, those without a label included.
    Of identical images under several labels, the first class counts. At least one image of each class stays.

    Parameters
    ----------
    share : ValidationShare
        How many, and by which seed.
    splits : ndarray of str, shape (n,)
        Training rows are those of split ``train``, or, where no row is, those in no split.
    labels : ndarray of int, shape (n,)
        Positions in `classes`, negative for none. Only labelled rows are drawn.
    classes : sequence of str
        Names of the classes.
    item_ids : ndarray of uint8, shape (n, 32), or None
        Content hashes; zeros for rows of one's own arrays, which are told apart by `ids`. Not needed for the last rows.
    ids : sequence of str, length n, optional
        Names of the rows; their positions by default.

    Returns
    -------
    ndarray of str, shape (n,)
        New splits: drawn rows are ``val``, the other training rows ``train``, all others as they were.

    Examples
    --------
    >>> contents = np.repeat(np.arange(1, 5, dtype=np.uint8), 2)[:, None].repeat(32, axis=1)
    >>> no, labels = np.full(8, ""), np.zeros(8, int)
    >>> draw_validation(ValidationShare(0.5), splits=no, labels=labels, classes=["a"], item_ids=contents).tolist()
    ['val', 'val', 'val', 'val', 'train', 'train', 'train', 'train']
    """
    splits = splits.astype(np.dtype(f"<U{max(5, splits.dtype.itemsize // 4)}"))
    train = np.flatnonzero(splits == ("train" if "train" in splits else ""))
    labelled = train[labels[train] >= 0]
    splits[train] = "train"
    if share.last:
        splits[labelled[len(labelled) - round(share.fraction * len(labelled)) :]] = "val"
    elif share.fraction and len(labelled):
        assert item_ids is not None
        numbers = _content_numbers(item_ids, train, ids, share.seed)
        drawn = _stratified(numbers[labels[train] >= 0], labels[labelled], classes, share)
        splits[train[np.isin(numbers, drawn)]] = "val"
    return splits


def _content_numbers(
    item_ids: np.ndarray, rows: np.ndarray, ids: Sequence[str] | np.ndarray | None, seed: int
) -> np.ndarray:
    """Return a number for each of `rows`, the same for the same content: its hash, stirred by the seed (SplitMix64)."""
    hashes = item_ids[rows]
    x: np.ndarray = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel()
    for i in np.flatnonzero(~hashes.any(axis=1)):
        x[i] = _hash(f"row {rows[i] if ids is None else ids[rows[i]]}")
    x = x + np.uint64(_hash(f"seed {seed}"))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _stratified(numbers: np.ndarray, labels: np.ndarray, classes: Sequence[str], share: ValidationShare) -> np.ndarray:
    """Return the lowest of the distinct `numbers` of each class, `share` of them."""
    order = np.lexsort((labels, numbers))
    numbers, labels = numbers[order], labels[order]
    first = np.flatnonzero(np.diff(numbers, prepend=~numbers[:1]))  # of identical images the first class counts
    order = first[np.argsort(labels[first], kind="stable")]
    values, starts = np.unique(labels[order], return_index=True)
    drawn = [numbers[:0]]
    for label, members in zip(values.tolist(), np.split(numbers[order], starts[1:]), strict=True):
        # Rounded up or down by the class's own draw: many small classes together still give the fraction.
        n = int(share.fraction * len(members) + _hash(f"class {share.seed} {classes[label]}") / 2**64)
        drawn.append(members[: min(n, len(members) - 1)])
    return np.concatenate(drawn)


def _hash(text: str) -> int:
    """Return a whole number below 2**64 that depends on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def split_warnings(item_ids: np.ndarray, splits: np.ndarray, ids: Sequence[str]) -> list[str]:
    """Warn of few validation images, and of images that are in several splits, as `shared_across_splits` does."""
    n = int((splits == "val").sum())
    warnings = shared_across_splits(item_ids, splits, ids)
    if 0 < n < FEWEST_VALIDATION:
        images = "1 image" if n == 1 else f"{n} images"
        warnings.insert(0, f"Only {images} to validate on: accuracy there is uncertain by ±{100 / n**0.5:.0f} points.")
    return warnings


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


def place(paths: Sequence[str]) -> tuple[list[str | None], list[str], list[str]]:
    """Read labels and splits from relative paths.

    The class is the *first* folder below the root, however deep the image lies in it. Where every first
    folder means a split (train, val, test, or as `split_name` knows them), those are the splits, and the
    class is the first folder below them. An image in no folder has no label. Split folders may share a word
    (``seg_train``, ``seg_test``), may lie in one of their own name (``train/train/cats``), and may stand beside
    one of images without labels (``pred``). A split of one folder called ``test``, ``unknown`` or the like has
    no labels.

    Parameters
    ----------
    paths : sequence of str
        Relative POSIX paths.

    Returns
    -------
    labels : list of str or None
    splits : list of str
        ``train``, ``val``, ``test``, or empty.
    notes : list of str
        What a user should know of how the folders were understood, a sentence each.

    Examples
    --------
    >>> place(["cats/1.jpg", "cats/old/2.jpg", "dogs/1.jpg", "3.jpg"])
    (['cats', 'cats', 'dogs', None], ['', '', '', ''], [])
    >>> place(["train/cats/1.jpg", "valid/dogs/1.jpg", "test/1.jpg"])
    (['cats', 'dogs', None], ['train', 'val', 'test'], [])
    >>> place(["seg_train/sea/1.jpg", "seg_pred/2.jpg"])
    (['sea', None], ['train', ''], ["Folders read as splits: 'seg_pred' (no labels), 'seg_train' (train)."])
    """
    folders = [path[: path.rfind("/") + 1] for path in paths]  # images of one folder have one place
    counts = Counter(folders)
    split_of, notes = _split_folders({folder.partition("/")[0] for folder in counts if folder})
    below: dict[str, set[str]] = {top: set() for top in split_of}
    for top, _, rest in (folder.partition("/") for folder in counts if folder and split_of):
        below[top].add(rest.partition("/")[0].lower())
    doubled = {top for top, names in below.items() if names == {top.lower()}}
    placed: dict[str, tuple[str | None, str]] = {}
    for folder in counts:
        top, _, rest = folder.partition("/") if split_of else ("", "", folder)
        rest = rest.partition("/")[2] if top in doubled else rest
        placed[folder] = rest.partition("/")[0] or None, split_of.get(top, "")
    for top, split in split_of.items():
        inside = [folder for folder in counts if folder.startswith(f"{top}/")]
        (name, *others) = {placed[folder][0] for folder in inside}
        if split != "train" and not others and (name or "").lower() in _NO_CLASS:
            n_images = sum(counts[folder] for folder in inside)
            notes.append(f"The {n_images:,} images in {top}/{name} have no label: it is the only folder there.")
            placed |= dict.fromkeys(inside, (None, split))
    return [placed[folder][0] for folder in folders], [placed[folder][1] for folder in folders], notes


def _split_folders(tops: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return the split of each first folder, empty for one without labels, if all of them are such; and notes."""
    plain = {top: split for top in tops if (split := split_name(top))}
    if len(plain) == len(tops):
        return plain, []
    others = sorted(tops - plain.keys())
    words = {top: _WORDS_BESIDE.split(top.lower()) for top in tops}
    found: dict[str, str] = {}
    beside = set()
    for top in sorted(tops):
        known = [word for word in words[top] if word in _NAMES or word in _UNLABELLED_WORDS]
        if len(known) == 1:
            found[top] = _NAMES.get(known[0], "")
            beside.add(tuple(word for word in words[top] if word != known[0]))
    if len(found) == len(tops) == len(set(found.values())) and len(beside) == 1 and "train" in found.values():
        read = ", ".join(f"{top!r} ({split or 'no labels'})" for top, split in found.items())
        return found, [f"Folders read as splits: {read}."]
    if "train" in plain.values():
        note = (
            f"Folders {', '.join([*sorted(plain), *others[:3]])} lie side by side, so each of them is a class. "
            "If some are splits, move the others away."
        )
        return {}, [note]
    return {}, []
