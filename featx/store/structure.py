"""Does h5py see what featx reads? Checked by ``featx cache verify``, and nothing hostile is followed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from featx.errors import CorruptFileError
from featx.store.container import FORMAT, Sealed
from featx.store.layout import Extent, hdf5_dtype


def check_structure(file: Sealed) -> None:
    """Compare the HDF5 structures of a sealed file with its user block.

    Only links and headers are looked at: every member must be a hard link to a contiguous dataset
    without filters, external files or virtual sources, at the very bytes that the user block names.

    Raises
    ------
    CorruptFileError
        If h5py would show anything else than featx does.
    """
    import h5py

    try:
        with h5py.File(file.path, "r") as hdf5:
            found = dict(_extents(hdf5))
            attributes = dict(hdf5.attrs)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CorruptFileError(f"{file.path} is damaged: h5py cannot read it ({error}).") from error
    expected = {name: _plain(extent) for name, extent in file.extents.items()}
    if found != expected or attributes != {**file.attributes, "format": FORMAT}:
        raise CorruptFileError(f"{file.path} shows h5py something else than featx. Do not trust it.")


def _plain(extent: Extent) -> tuple[int, str, tuple[int, ...]]:
    dtype = hdf5_dtype(extent.dtype)
    return extent.offset if extent.n_bytes else 0, str(dtype.descr), extent.shape


def _extents(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            yield prefix + name, type(link).__name__
            continue
        member = group[name]
        if isinstance(member, h5py.Group) and not prefix:
            yield from _extents(member, f"{name}/")
        elif isinstance(member, h5py.Dataset):
            yield prefix + name, _dataset(member)
        else:
            yield prefix + name, type(member).__name__


def _dataset(dataset: Any) -> Any:
    from h5py import h5d

    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5d.CONTIGUOUS or properties.get_nfilters() or properties.get_external_count():
        return "not contiguous"
    return dataset.id.get_offset() if dataset.size else 0, str(dataset.dtype.descr), dataset.shape
