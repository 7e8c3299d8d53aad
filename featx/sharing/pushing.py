"""Sending a model to the Hugging Face Hub: its file and its card, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from featx.errors import DataError, OptionError
from featx.model import load
from featx.model.hub import Address, endpoint, library, told
from featx.packing import PackedModel, is_packed
from featx.sharing.model_card import card

if TYPE_CHECKING:
    from featx.model import Model


def push(path: str | Path, to: str, *, private: bool = False, license: str | None = None) -> str:  # noqa: A002 - as the Hub calls it
    """Send a model file and its card to a repository, which is made where it is not there, in one commit.

    The login is that of `huggingface_hub`: ``hf auth login``, or ``HF_TOKEN``.

    Parameters
    ----------
    path : path-like
        A model file, or a packed one; the latter has a short card.
    to : str
        ``hf://owner/name``.
    private : bool
        Whether a new repository is seen by its owner alone.
    license : str, optional
        As the Hub abbreviates it: ``apache-2.0``.

    Returns
    -------
    str
        The address of the commit.

    Raises
    ------
    ModelFileError
        If the file is damaged, or holds code: what is sent can be loaded without trust.
    OptionError
        If `to` is no place for it.
    DataError
        If the Hub cannot be reached, or refuses.
    """
    path, address = Path(path), Address.parse(to)
    if address.revision is not None:
        raise OptionError(f"{to} names a revision, and what is sent becomes the newest. Type hf://{address.repository}")
    file = f"model{path.suffix.lower()}"
    text = _card_of(path, address.repository, file, license)  # opens the file, which refuses what is no data
    hub = library("featx push")
    try:
        api = hub.HfApi(endpoint=endpoint(), library_name="featx")
        api.create_repo(address.repository, private=private, exist_ok=True)
        done = api.create_commit(
            address.repository,
            [hub.CommitOperationAdd(file, path), hub.CommitOperationAdd("README.md", text.encode())],
            commit_message="A model of featx, and its card",
        )
    except (hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise DataError(f"Cannot send {path} to {address.repository}: {told(error)}") from error
    return str(done.commit_url)


def _card_of(path: Path, name: str, file: str, license_name: str | None) -> str:
    if is_packed(path):
        model = PackedModel(path)
        classes = ", ".join(f"`{one}`" for one in model.classes)
        licensed = [f"license: {license_name}"] if license_name else []
        use = ["```sh", f"featx predict hf://{name}/{file} photo.jpg", "```"]
        head = ["---", "library_name: featx", *licensed, "---", "", f"# {name}", "", repr(model).strip("<>")]
        return "\n".join([*head, "", classes, "", *use, ""])
    model_file: Model = load(path)
    return card(model_file, name=name, file=file, license=license_name)
