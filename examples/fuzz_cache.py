"""Feed the readers of tables, segments and model files with whatever a fuzzer thinks of.

    pip install atheris
    python examples/fuzz_cache.py -max_total_time=600

Each input is read as it is, and again with every digest set right, as someone who means harm would
do. A reader may refuse with a `CacheError` or a `ModelFileError`, or read what the file honestly
describes. Any other exception is a fault. Expected: none in ten minutes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import atheris

with atheris.instrument_imports(include=["featx"]):
    from featx.errors import CacheError, ModelFileError
    from featx.features import Features
    from featx.model import archive, fit, load
    from featx.store import Disk, Store, TableContent
    from featx.store.container import FORMAT, MAGIC, extent_from_json
    from featx.store.hdf5 import gaps_between
    from featx.store.rows import digest
    from featx.store.segments import Segment
    from featx.store.tables import Table

import numpy as np

KEY = "ab" * 32
MODEL = Path(tempfile.mkdtemp()) / "m.featx"


class OneFile(Disk):
    """A disk with one file, in memory, under every name."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def open(self, _path, _flags):
        """Open it."""
        return 0

    def close(self, _fd):
        """Close it."""

    def read(self, _fd, buffers, offset):
        """Read from it."""
        return io.BytesIO(self.content[offset:]).readinto(buffers[0])

    def stat(self, _target):
        """Tell its size."""
        return SimpleNamespace(st_size=len(self.content))


def sealed(content: bytes) -> bytes:
    """Return `content` with every digest as it should be, as far as its user block can be understood."""
    user_block = int.from_bytes(content[8:12], "little")
    body, image = content[32:user_block], content[user_block:]
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        header = json.loads(body.rstrip(b"\0"))
        extents = {name: extent_from_json(extent) for name, extent in header["arrays"].items()}
        parts = {name: content[extent.offset : extent.end] for name, extent in extents.items() if name != "X"}
        header["digests"] = {name: digest(part).hex() for name, part in parts.items()}
        gaps = gaps_between(extents, user_block, len(content))
        header |= {"size": len(content), "gaps": digest(b"".join(content[low:high] for low, high in gaps)).hex()}
        body = json.dumps(header).encode().ljust(len(body), b"\0")[: len(body)]
    start = MAGIC + content[8:12] + FORMAT.to_bytes(4, "little")
    return start + digest(start + body) + body + image


def read_all(content: bytes) -> None:
    """Open as a table and as a segment, and read all there is."""
    disk = OneFile(content)
    table = Table(Path("cache/photos/x.h5"), disk)
    columns = (table.ids, table.y, table.classes, table.splits, table.item_ids, table.errors, table.probe)
    assert len(columns[0]) == len(table) == len(table.rows.read(0, len(table)))
    table.verify()


def read_segment(content: bytes) -> None:
    path = Path("cache/.segments") / KEY / f"{'0' * 40}.h5"
    Segment(OneFile(content), Path("cache"), KEY, path).verify()


def read_model(content: bytes) -> None:
    """Load a model file."""
    MODEL.write_bytes(content)
    load(MODEL)


def vouched(content: bytes) -> bytes:
    """Return a model file with every digest as it should be, as far as it can be taken apart."""
    with contextlib.suppress(ValueError, LookupError, TypeError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = {info.filename: file.read(info) for info in file.infolist() if info.file_size < 1 << 20}
        card = json.loads(members.pop("model.json"))
        card["members"] = {
            name: {"size": len(member), "sha256": hashlib.sha256(member).hexdigest()}
            for name, member in members.items()
        }
        archive.write(MODEL, {"model.json": json.dumps(card).encode(), **members})
        return MODEL.read_bytes()
    return content[:-64] + hashlib.sha256(content[:-64]).hexdigest().encode()


def one_input(data: bytes) -> None:
    """Try one input; what is refused is fine."""
    if data[:2] == b"PK":
        for content in (data, vouched(data)):
            with contextlib.suppress(ModelFileError):
                read_model(content)
        return
    for content in (data, sealed(data)):
        for read in (read_all, read_segment):
            with contextlib.suppress(CacheError):
                read(content)


def seeds(folder: Path) -> None:
    """Write a true table, a segmented one and a true segment, for the fuzzer to start from."""
    items = np.arange(96, dtype=np.uint8).reshape(3, 32)
    columns = {"ids": ["a", "b", "c"], "y": np.array([0, 1, 0]), "splits": ["train"] * 3, "classes": ("x", "y")}
    with tempfile.TemporaryDirectory() as name:
        for limit in (0, 1 << 30):
            store = Store(Path(name) / str(limit), limit=limit)
            segment = store.commit(KEY, items, np.arange(6, dtype=np.float32).reshape(3, 2))
            shutil.copy(segment, folder / f"segment-{limit}")
            table = store.publish(
                "photos", "toy", TableContent(key=KEY, recipe="{}", request="{}", item_ids=items, **columns)
            )
            shutil.copy(table, folder / f"table-{limit}")
    rng = np.random.default_rng(0)
    features = Features.from_arrays(rng.normal(size=(30, 4)), np.arange(30) % 3, classes=("x", "y", "z"))
    for head, settings in {"ridge": {}, "knn": {}, "xgboost": {"n_estimators": 1, "max_depth": 2}}.items():
        fit(features, head, settings=settings).save(folder / f"{head}.featx")


def main() -> None:
    """Fuzz until told to stop, by the options of libFuzzer."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        seeds(Path(name))
        atheris.Setup([*sys.argv, name, "-max_len=40000"], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
