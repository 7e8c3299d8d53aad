"""What the place of an image in a folder or archive says about it: its split and its class."""

from __future__ import annotations

from collections.abc import Sequence

from featx.datasets.splits import split_name


def place(paths: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Read labels and splits from relative paths.

    The class is the *first* folder below the root, however deep the image lies in it. Where every first
    folder means a split (train, val, test, or as `split_name` knows them), those are the splits, and the
    class is the first folder below them. An image in no folder has no label.

    Parameters
    ----------
    paths : sequence of str
        Relative POSIX paths.

    Returns
    -------
    labels : list of str or None
    splits : list of str
        ``train``, ``val``, ``test``, or empty.

    Examples
    --------
    >>> place(["cats/1.jpg", "cats/old/2.jpg", "dogs/1.jpg", "3.jpg"])
    (['cats', 'cats', 'dogs', None], ['', '', '', ''])
    >>> place(["train/cats/1.jpg", "valid/dogs/1.jpg", "test/1.jpg"])
    (['cats', 'dogs', None], ['train', 'val', 'test'])
    """
    tops = {path[: path.index("/")] for path in paths if "/" in path}
    splits: dict[str | None, str | None] = {top: split_name(top) for top in tops}
    if not tops or None in splits.values():
        return [_first_folder(path) for path in paths], [""] * len(paths)
    labels = [_first_folder(path[path.find("/") + 1 :]) for path in paths]
    return labels, [splits.get(_first_folder(path)) or "" for path in paths]


def _first_folder(path: str) -> str | None:
    end = path.find("/")
    return path[:end] if end >= 0 else None
