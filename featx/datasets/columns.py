"""Which column of a table is the image, which the label, which the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featx.errors import DataError

IMAGE_NAMES = (
    "image", "img", "file", "filename", "file_name", "filepath", "file_path", "path", "image_path", "img_path",
    "image_name", "image_file", "image_id", "id", "name",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "breed", "species",
    "fine_label", "cls", "diagnosis", "y",
)  # fmt: skip
SPLIT_NAMES = ("split", "subset", "partition")


@dataclass(frozen=True)
class Columns:
    """The columns that the user named; None where featx is to find them.

    Parameters
    ----------
    image, label, split : str or None
        Values of ``--image-column``, ``--label-column``, ``--split-column``.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None

    @property
    def named(self) -> str | None:
        """The first option that was given."""
        options = {"--image-column": self.image, "--label-column": self.label, "--split-column": self.split}
        return next((option for option, value in options.items() if value is not None), None)


def find_column(
    present: Sequence[str], wanted: str | None, known: Sequence[str], *, option: str, source: str
) -> str | None:
    """Return the column that was asked for, or the first known name that is there, whatever its case.

    Raises
    ------
    DataError
        If the column that was asked for is not there.

    Examples
    --------
    >>> find_column(["Id", "Breed"], None, LABEL_NAMES, option="--label-column", source="labels.csv")
    'Breed'
    """
    if wanted is not None:
        if wanted in present:
            return wanted
        raise DataError(f"{source} has no column {wanted!r}. It has: {', '.join(present)}. Change {option}.")
    spelled = {name.lower().strip(): name for name in reversed(present)}
    return next((spelled[name] for name in known if name in spelled), None)
