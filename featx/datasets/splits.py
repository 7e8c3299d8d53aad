"""Which rows are for training, validation and test: by folders, by the one validation draw; images in two of them."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from featx.errors import DataError, OptionError

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
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """Take validation rows from the training rows: the only such draw, for a data set as for a table of features.

    Of each class the distinct images with the lowest numbers are taken, where an image's number is a hash of its
    content and the seed. So the order of rows and their names do not matter, images that are added later move
    (almost) none of the others, and identical images are all taken or all left, those without a label included.
    Of identical images under several labels, the first class counts. At least one image of each class stays.
    Groups are taken whole, as `_drawn_groups` says; of the last rows, those whose group has earlier ones stay in train.

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
    groups : ndarray of str, shape (n,), optional
        The group of each row, empty for a row by itself: photos of one patient, frames of one film.
    times : ndarray of float, shape (n,), optional
        When each row was taken, NaN for unknown. The latest rows then validate, all of one moment together. Rows as
        late as these whose group began before are in no split: they would tell of it, or of the future.

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
    if times is not None and share.fraction:
        contents = np.zeros((len(times), 32), np.uint8) if item_ids is None else item_ids
        units = _numbers(group_ids(contents, groups), train, ids, share.seed)
        splits[train] = _latest(share.fraction, labels[train] >= 0, times[train], units)
        if (labels[train] >= 0).any() and "val" not in splits[train]:
            raise DataError(
                "No row is later than all others and of a group that began late, so none can validate while earlier "
                "ones train. Leave out --time-column, or go without validation: --val 0"
            )
    elif share.last:
        last = labelled[len(labelled) - round(share.fraction * len(labelled)) :]
        if groups is not None:  # one that began before stays whole
            contents = np.zeros((len(groups), 32), np.uint8) if item_ids is None else item_ids
            units = _numbers(group_ids(contents, groups), np.arange(len(groups)), ids, share.seed)
            last = last[~np.isin(units[last], units[np.setdiff1d(train, last)])]
        splits[last] = "val"
    elif share.fraction and len(labelled):
        assert item_ids is not None
        contents = _numbers(item_ids, train, ids, share.seed)
        units = contents if groups is None else _numbers(group_ids(item_ids, groups), train, ids, share.seed)
        known = labels[train] >= 0
        drawn = _stratified(contents[known], units[known], labels[labelled], classes, share)
        splits[train[np.isin(units, drawn)]] = "val"
    return splits


def _latest(fraction: float, labelled: np.ndarray, times: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return ``train``, ``val`` or nothing for each row: the latest labelled ones validate, if groups let them."""
    known = np.where(np.isnan(times), -np.inf, times)
    order = np.sort(known[labelled])
    start = order[min(len(order) - 1, len(order) - round(fraction * len(order)))] if len(order) else np.inf
    if len(order) and start == order[0]:  # all of one moment
        start = next((moment for moment in order.tolist() if moment > start), np.inf)
    late = known >= start
    torn = late & np.isin(units, units[~late])
    return np.where(late & ~torn & labelled, "val", np.where(torn, "", "train"))


def group_ids(item_ids: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return what must stay on one side of every split: the same 32 bytes for all rows of a group.

    Parameters
    ----------
    item_ids : ndarray of uint8, shape (n, 32)
        Content hashes; zeros for none.
    groups : ndarray of str, shape (n,), or None
        Empty for a row by itself. Two groups that share an image are one.

    Returns
    -------
    ndarray of uint8, shape (n, 32)
        The content hash of a row in no group, else a hash of the group's name.

    Examples
    --------
    >>> contents = np.array([[1], [2], [2], [3]], np.uint8).repeat(32, axis=1)
    >>> ids = group_ids(contents, np.array(["a", "a", "b", ""]))
    >>> len(np.unique(ids[:3], axis=0)), (ids[3] == contents[3]).tolist()[:2]
    (1, [True, True])
    """
    if groups is None or not (groups != "").any():
        return item_ids
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    contents, content = np.unique(np.ascontiguousarray(item_ids).view("S32").ravel(), return_inverse=True)
    names, name = np.unique(groups, return_inverse=True)
    named, size = groups != "", len(contents) + len(names)
    linked = named & item_ids.any(axis=1)
    links = (content[linked], len(contents) + name[linked])
    component = connected_components(coo_array((np.ones(len(links[0])), links), (size, size)), directed=False)[1]
    # A component is known by the first of its groups' names; one without any is a single content.
    known_by = np.zeros((component.max() + 1, 32), np.uint8)
    for k in range(len(names) - 1, -1, -1):
        if names[k]:
            digest = hashlib.sha256(f"group {names[k]}".encode("utf-8", "surrogateescape")).digest()
            known_by[component[len(contents) + k]] = np.frombuffer(digest, np.uint8)
    found: np.ndarray = known_by[component[np.where(named, len(contents) + name, content)]]
    return np.where(found.any(axis=1, keepdims=True), found, item_ids)


def _numbers(item_ids: np.ndarray, rows: np.ndarray, ids: Sequence[str] | np.ndarray | None, seed: int) -> np.ndarray:
    """Return a number for each of `rows`, the same for the same hash: that hash, stirred by the seed (SplitMix64)."""
    hashes = item_ids[rows]
    x: np.ndarray = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel()
    for i in np.flatnonzero(~hashes.any(axis=1)):
        x[i] = _hash(f"row {rows[i] if ids is None else ids[rows[i]]}")
    x = x + np.uint64(_hash(f"seed {seed}"))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _stratified(
    contents: np.ndarray, units: np.ndarray, labels: np.ndarray, classes: Sequence[str], share: ValidationShare
) -> np.ndarray:
    """Return the numbers of those `units` (groups, or single contents) that are drawn: of each class its share."""
    order = np.lexsort((labels, contents))
    first = order[np.diff(contents[order], prepend=~contents[order[:1]]) != 0]  # of identical images the first class
    units, labels = units[first], labels[first]
    order = np.lexsort((units, labels))
    values, starts = np.unique(labels[order], return_index=True)
    members = np.split(units[order], starts[1:])
    # Rounded up or down by the class's own draw: many small classes together still give the fraction.
    wanted = [
        min(int(share.fraction * len(of) + _hash(f"class {share.seed} {classes[label]}") / 2**64), len(of) - 1)
        for label, of in zip(values.tolist(), members, strict=True)
    ]
    if any(wanted) and len(np.unique(units)) < len(units):
        return _drawn_groups(units, np.searchsorted(values, labels), np.array(wanted))
    return np.concatenate([units[:0], *(of[:n] for of, n in zip(members, wanted, strict=True))])


def _drawn_groups(units: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Draw whole groups so that each class comes near the number of images that is wanted of it.

    Groups are met in the order of their numbers. One is taken where that brings the numbers of images, summed over
    classes, nearer to those wanted, and leaves each class an image in another group. Where no group is so small, the
    one that comes nearest is taken.

    Parameters
    ----------
    units, labels : ndarray, shape (m,)
        Number of the group, and class, of each distinct image.
    wanted : ndarray of int, shape (k,)
        Images of each class.

    Raises
    ------
    DataError
        If every group holds all images of a class.
    """
    numbers, group = np.unique(units, return_inverse=True)
    cells, counts = np.unique(group * len(wanted) + labels, return_counts=True)  # of which class a group has how many
    groups, starts = np.unique(cells // len(wanted), return_index=True)
    parts = list(zip(np.split(cells % len(wanted), starts[1:]), np.split(counts, starts[1:]), strict=True))
    left, missing = np.bincount(labels, minlength=len(wanted)), wanted.copy()
    drawn, nearest = [], (np.inf, -1)
    for k, (of, n) in zip(groups.tolist(), parts, strict=True):
        if (left[of] == n).any():
            continue
        change = int((np.abs(missing[of] - n) - np.abs(missing[of])).sum())
        nearest = min(nearest, (change, k))
        if change < 0:
            left[of] -= n
            missing[of] -= n
            drawn.append(k)
    if nearest[1] < 0:
        raise DataError(
            "Every group holds all images of some class, so none can validate while others train. "
            "Make smaller groups, or go without validation: --val 0"
        )
    return np.asarray(numbers[drawn or [nearest[1]]])


def _hash(text: str) -> int:
    """Return a whole number below 2**64 that depends on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def split_warnings(
    item_ids: np.ndarray, splits: np.ndarray, ids: Sequence[str], groups: np.ndarray | None = None
) -> list[str]:
    """Warn of few validation images, and of images and groups that are in several splits.

    Parameters
    ----------
    item_ids, splits, ids
        As in `shared_across_splits`.
    groups : ndarray of str, shape (n,), optional
        Empty for a row by itself.
    """
    n = int((splits == "val").sum())
    warnings = shared_across_splits(item_ids, splits, ids)
    if groups is not None and (groups != "").any():
        pairs = np.unique(np.array([groups, splits])[:, (groups != "") & (splits != "")], axis=1)
        names, n_splits = np.unique(pairs[0], return_counts=True)
        if (torn := names[n_splits > 1]).size:
            of = ", ".join(pairs[1][pairs[0] == torn[0]])
            first = str(torn[0])
            which = f"Group {first!r} is" if len(torn) == 1 else f"{len(torn):,} groups, {first!r} for one, are"
            warnings.append(f"{which} in several splits ({of}), as these were given: scores there are too good.")
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
