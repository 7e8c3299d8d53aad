"""Models on the Hugging Face Hub: what an address such as ``hf://owner/name`` means, and the file behind it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import MissingDataError, MissingExtraError, OptionError

_ADDRESS = re.compile(r"hf:/+(?P<repository>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w./-]+))?")
#: The only kinds of files that are fetched or sent: data, in forms that are checked when they are opened.
_KINDS = (".featx", ".onnx")


@dataclass(frozen=True)
class Address:
    """A model on the Hub.

    Attributes
    ----------
    repository : str
        ``owner/name``.
    file : str
        In it.
    revision : str or None
        A branch, tag or commit; None for the newest.
    """

    repository: str
    file: str = "model.featx"
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | Path) -> Address:
        """Read ``hf://owner/name[@revision][/file]``.

        Raises
        ------
        OptionError
            If it is none, or names a file of another kind than models have.

        Examples
        --------
        >>> Address.parse("hf://me/birds@v2")
        Address(repository='me/birds', file='model.featx', revision='v2')
        """
        found = _ADDRESS.fullmatch(str(text))  # a Path has one slash where two were typed
        if found is None:
            raise OptionError(
                f"{text} is no address of a model on the Hub. Type hf://owner/name, or hf://owner/name@v1."
            )
        address = cls(found["repository"], found["file"] or cls.file, found["revision"])
        if not address.file.endswith(_KINDS):
            raise OptionError(
                f"{address.file} is no model file. Of the Hub only {' and '.join(_KINDS)} are taken: data, no code."
            )
        return address


def is_address(path: str | Path) -> bool:
    """Whether a model is on the Hub rather than in a file."""
    return str(path).startswith("hf:/")


def fetch(path: str | Path) -> Path:
    """Return the file of a model on the Hub, from the local cache of `huggingface_hub` where it is there already.

    Nothing else of the repository is fetched, and nothing is run.

    Parameters
    ----------
    path : str or path-like
        As `Address.parse` takes it.

    Raises
    ------
    MissingDataError
        If there is no such model, or the Hub cannot be reached.
    MissingExtraError
        If `huggingface_hub` is not installed.
    """
    address, hub = Address.parse(path), library("hf://")
    try:
        found = hub.hf_hub_download(
            address.repository, address.file, revision=address.revision, endpoint=endpoint(), library_name="featx"
        )
    except (hub.errors.EntryNotFoundError, hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise MissingDataError(f"Cannot fetch {address.file} of {address.repository}: {told(error)}") from error
    return Path(found)


def library(purpose: str) -> Any:
    """Import `huggingface_hub`.

    Raises
    ------
    MissingExtraError
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingExtraError.of("huggingface_hub", "hub", purpose) from error
    return huggingface_hub


def endpoint() -> str | None:
    """Return where the Hub is, if that is said: ``HF_ENDPOINT``."""
    return os.environ.get("HF_ENDPOINT") or None


def told(error: Exception) -> str:
    """Return the first line of an error of the Hub, and what to do about it."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"{line[:160]} Is the name right, the network there, and are you logged in (hf auth login)?"
