"""What featx once wrote is read for ever.

``data/cache_format_1.zip`` is a cache that the featx of November 2026 wrote (before the first release): a plain table
with an image that failed, one of float16, one of feature maps, one with two augmented views, one whose rows stay in
segments, and a segment that is in no table.
"""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from featx.cli import main
from featx.errors import CacheError, CorruptFileError
from featx.features import Features
from featx.store import Disk, Store, Table, TableContent, container
from featx.store.container import MAGIC, RowStream, Sealed
from featx.store.maintenance import collect, entries, verify
from featx.store.rows import digest
from featx.store.tables import write_table

FOLDER = "photos-12345678"
ITEMS = np.random.default_rng(0).integers(0, 256, (6, 32), dtype=np.uint8)
MORE = np.random.default_rng(1).integers(0, 256, (3, 32), dtype=np.uint8)
#: Stem of the table → shape and dtype of its rows, and which view they are.
TABLES = {
    "plain-289a25d8": ((4,), "float32", 0),
    "half-ace2abdf": ((4,), "float16", 0),
    "maps-0b8e583f": ((2, 3, 2), "float32", 0),
    "viewed-ca60ffab": ((5,), "float32", 0),
    "viewed-view1-c3b71acf": ((5,), "float32", 1),
    "viewed-view2-16afd713": ((5,), "float32", 2),
    "many-21b69230": ((3,), "float32", 0),
}
LOOSE = "b841a1c7b77e105529d6f38ebd2ce32094210b25b2f8fb3135b4f9d7857a9135"


def rows(items, shape, dtype, view=0):
    values = items[:, : int(np.prod(shape))].astype(np.float64) / 8 + view
    return values.astype(dtype).reshape(len(items), *shape)


@pytest.fixture
def cache(tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "data" / "cache_format_1.zip") as file:
        file.extractall(tmp_path / "cache")
    return tmp_path / "cache"


def test_files_of_format_1_are_sound_and_hold_what_was_written(cache):
    assert {path.stem for path in Store(cache).catalog.all_tables()} == set(TABLES)
    assert [verdict.problem for verdict in verify(Store(cache))] == [None] * (len(TABLES) + 4)
    for stem, (shape, dtype, view) in TABLES.items():
        t = Features.open(cache / FOLDER / f"{stem}.h5")

        assert (t.shape, t.dtype) == ((6, *shape), np.dtype(dtype))
        assert np.array_equal(t.X, rows(ITEMS, shape, dtype, view))
        assert t.y.tolist() == [-1, 0, 1, -1, 0, 1]
        assert t.ids[1] == "cats/1-ä.jpg"
        assert t.classes == ("cat", "dog")
        assert t.splits.tolist() == ["train", "test", ""] * 2
        assert np.array_equal(t.item_ids, ITEMS)
        assert t.recipe.shape == shape
        assert t.key.startswith(stem[-8:])
        assert t.request.backbone == "alexnet"
        assert t.provenance == {"host": "here"}
        assert t.probe["pixels"].tolist() == [0, 1, 2, 3]


def test_errors_views_segments_and_hints_of_format_1_are_found(cache):
    plain, viewed = (Features.open(cache / FOLDER / f"{stem}.h5") for stem in ("plain-289a25d8", "viewed-ca60ffab"))
    store = Store(cache)

    assert plain.errors == [("bad.jpg", "cut off")]
    assert store.known_errors(plain.key, np.full((1, 32), 7, np.uint8)) == {0: "cut off"}
    assert viewed.views == 3
    assert np.array_equal(viewed.view(2).X, rows(ITEMS, (5,), "float32", 2))
    assert len(Table(cache / FOLDER / "many-21b69230.h5").segments) == 3
    assert np.array_equal(store.read(LOOSE, ITEMS), rows(ITEMS, (6,), "float32"))
    assert [entry.shape for entry in entries(store) if entry.kind == "unfinished"] == [(6,)]
    assert store.record("last used/tables") == {"tables": ["photos-12345678/plain"]}
    assert store.plan("p") == {"batch": 8}
    assert store.known_hashes(ITEMS[:, :16].copy())[1].all()
    assert collect(store) == []


@pytest.mark.parametrize("stem", TABLES)
def test_tables_of_format_1_are_extended_without_computing_anything_again(cache, stem):
    shape, dtype, view = TABLES[stem]
    old = Table(cache / FOLDER / f"{stem}.h5")
    store = Store(cache, limit=1 if old.segments else 1 << 30)
    items = np.concatenate([MORE, ITEMS])

    assert store.find(old.key, items).tolist() == [False] * 3 + [True] * 6
    store.commit(old.key, MORE, rows(MORE, shape, dtype, view))
    content = TableContent(
        key=old.key,
        recipe=old.recipe,
        request=old.request,
        ids=[f"{i}.jpg" for i in range(9)],
        item_ids=items,
        y=np.zeros(9, np.int64),
        classes=("cat",),
        splits=[""] * 9,
        views=old.views,
    )
    path = store.publish(FOLDER, stem.rpartition("-")[0], content)
    assert path == old.path
    assert np.array_equal(Features.open(path).X, rows(items, shape, dtype, view))
    assert [verdict.problem for verdict in verify(store) if verdict.problem] == []


def of_version(path, version):
    """Seal the file again as one of another format."""
    content = path.read_bytes()
    user_block = int.from_bytes(content[8:12], "little")
    start, body = MAGIC + content[8:12] + version.to_bytes(4, "little"), content[32:user_block]
    path.write_bytes(start + digest(start + body) + body + content[user_block:])


def test_a_newer_format_says_what_to_do(cache):
    path = cache / FOLDER / "plain-289a25d8.h5"
    key = Table(path).key
    of_version(path, 2)

    for read in (lambda: Features.open(path), lambda: Store(cache).find(key, ITEMS)):
        with pytest.raises(CacheError, match=r"is of format 2, this featx reads 1\. Update featx \(pip install"):
            read()
    assert path.exists()  # it is not damaged, and not set aside


def test_a_table_of_a_newer_format_is_listed_and_kept_beside_the_others(cache):
    path, before = cache / FOLDER / "plain-289a25d8.h5", {one.path for one in entries(Store(cache))}
    of_version(path, 2)

    found = {one.path: one for one in entries(Store(cache))}
    assert found.keys() == before
    assert found[path].kind == "unreadable"
    assert "is of format 2" in found[path].problem
    assert {one.kind for one in found.values() if one.path != path} == {one.kind for one in found.values()} - {
        "unreadable"
    }
    assert path not in {one.path for one in collect(Store(cache), max_size=0)}
    assert path.exists()


def test_verify_names_a_file_of_a_newer_format_and_goes_on(cache, capsys):
    path = cache / FOLDER / "plain-289a25d8.h5"
    of_version(path, 2)

    kinds = {one.path: one.kind for one in verify(Store(cache), repair=True)}
    assert kinds.pop(path) == "unreadable"
    assert list(kinds.values()) == ["sound"] * (len(TABLES) + 3)
    assert path.exists()

    assert main(["cache", "verify", "--cache", str(cache)]) == 1
    assert re.search(r"11 files, .*: 0 damaged, 1 unreadable\. .* is of format 2", capsys.readouterr().err)


def test_the_format_in_a_file_chooses_its_reader(cache, monkeypatch):
    path = cache / FOLDER / "plain-289a25d8.h5"
    of_version(path, 2)
    monkeypatch.setitem(container.READERS, 2, lambda fields: container.READERS[1](fields | {"kind": "of format 2"}))

    assert Sealed.open(Store(cache).disk, path).kind == "of format 2"


def written(path, **changes):
    """Write a table as featx would not."""
    content = TableContent(
        key=changes.pop("key", "ab12"),
        recipe="{}",
        request="{}",
        ids=["a"],
        item_ids=ITEMS[:1],
        y=np.zeros(1, np.int64),
        classes=("cat",),
        splits=[""],
    )
    content.columns.update(changes)
    write_table(Disk(), path, content, RowStream(np.dtype("<f4"), (1, 2), lambda start, stop: np.zeros((1, 2), "<f4")))
    return path


@pytest.mark.parametrize("key", ["../../elsewhere", "a/b", "x" * 101])
def test_a_key_that_could_lead_out_of_the_cache_is_refused(tmp_path, key):
    with pytest.raises(CorruptFileError, match="its key is not as featx writes it"):
        Table(written(tmp_path / "t.h5", key=key))


@pytest.mark.parametrize("label", [-2, 1, 2**62])
def test_labels_of_no_class_are_refused(tmp_path, label):
    t = Table(written(tmp_path / "t.h5", y=np.array([label])))

    with pytest.raises(CorruptFileError, match="labels of no class"):
        _ = t.y
