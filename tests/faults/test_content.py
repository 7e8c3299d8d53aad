"""FAULTS rows 15, 16, 20, 23 and 26: whatever becomes of a folder, an archive or a list, rows belong to contents."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_network import album, photo, rows_by_content, run
from toy_rows import KEY, features, items, publish

import featx
from featx.cli import main
from featx.errors import DataError
from featx.store import Store, Table

POOL = items(30)
NETWORK = ["--backbone", "tiny_network:tiny", "--backbone-version", "1", "--weights", "none", "--engine", "eager"]


def test_row_15_what_is_hashed_again_corrects_what_was_remembered(tmp_path):
    """An image edited in place, size and times kept, has the old stamp; ``--rehash`` reads it and says so."""
    stamps, ids = items(3, seed=5)[:, :16], items(4)
    Store(tmp_path).remember_hashes(stamps, ids[:3])
    Store(tmp_path).remember_hashes(stamps[1:2], ids[3:])

    found, known = Store(tmp_path).known_hashes(stamps)
    assert known.all()
    assert np.array_equal(found, ids[[0, 3, 2]])


def test_row_15_an_image_edited_with_size_and_times_kept_is_found_with_rehash(tmp_path):
    photos = album(tmp_path / "photos")
    path = photos / "cat" / "0.png"
    status, before = path.stat(), path.read_bytes()
    run(photos, tmp_path / "cache")
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(tmp_path / "black.png")
    after = (tmp_path / "black.png").read_bytes().ljust(len(before), b"\0")
    with path.open("r+b") as file:
        file.write(after)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_ino) == (status.st_size, status.st_ino)

    assert run(photos, tmp_path / "cache").computed == 0  # the documented limit
    done = run(photos, tmp_path / "cache", rehash=True)
    assert done.computed == 1
    assert rows_by_content(done.tables[0]) == rows_by_content(run(photos, tmp_path / "fresh").tables[0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=40), min_size=1, max_size=4))
def test_row_16_any_history_of_a_folder_computes_each_content_once(tmp_path_factory, versions):
    """Images renamed, moved, reordered, duplicated, relabelled, deleted and added, in any order."""
    store, computed = Store(tmp_path_factory.mktemp("cache")), []
    for version, rows in enumerate(versions):
        missing = np.unique(np.array(rows)[~store.find(KEY, POOL[rows])])
        if len(missing):
            store.commit(KEY, POOL[missing], features(POOL[missing]))
        computed.extend(missing.tolist())
        labels = np.array([(row + version) % 2 for row in rows])
        table = Table(publish(store, POOL[rows], ids=[f"{version}/{i}" for i in range(len(rows))], y=labels))

        assert np.array_equal(table.rows.read(0, len(rows)), features(POOL[rows]))
        assert np.array_equal(table.y, labels)

    assert sorted(computed) == sorted({row for rows in versions for row in rows})


def labels_by_content(table):
    return {item.tobytes(): table.classes[label] for item, label in zip(table.item_ids, table.y, strict=True)}


def test_row_16_a_folder_that_changes_costs_what_is_new_and_keeps_each_row_with_its_label(tmp_path):
    photos, cache = album(tmp_path / "photos", 120), tmp_path / "cache"
    first = run(photos, cache)
    rows, labels = rows_by_content(first.tables[0]), labels_by_content(first.tables[0])

    def again(computed):
        done = run(photos, cache)
        table = done.tables[0]
        assert done.computed == computed
        assert rows.items() <= rows_by_content(table).items()
        assert [str(name).split("/")[0] for name in table.ids] == [table.classes[label] for label in table.y]
        return labels_by_content(table)

    for number, path in enumerate(sorted(photos.rglob("*.png"))):  # renamed and reordered, all of them
        path.rename(path.with_name(f"{(number * 7919) % 1000:03d}-x.png"))
    assert again(0) == labels
    for i in range(100):
        photo(photos / "eel" / f"new-{i}.png", 1000 + i)
    assert labels.items() <= again(100).items()
    (photos / "dog").rename(photos / "wolf")  # a class renamed: the labels are new, the rows are not
    renamed = again(0)
    assert {renamed[item] for item, label in labels.items() if label == "dog"} == {"wolf"}
    moved = next((photos / "cat").iterdir())
    shutil.move(moved, photos / "eel" / "moved.png")
    assert again(0) != renamed
    shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    elsewhere = run(tmp_path / "elsewhere" / "photos", cache)
    assert (elsewhere.computed, elsewhere.reused) == (0, 220)


def test_row_16_duplicates_are_computed_once_and_keep_their_own_labels(tmp_path):
    photos = album(tmp_path / "photos")
    shutil.copy(photos / "cat" / "0.png", photos / "dog" / "0.png")

    done = run(photos, tmp_path / "cache")

    table = done.tables[0]
    named = dict(zip(table.ids.tolist(), zip(table.X, table.y, strict=True), strict=True))
    assert (done.computed, len(table)) == (12, 13)
    assert np.array_equal(named["cat/0.png"][0], named["dog/0.png"][0])
    assert [table.classes[named[name][1]] for name in ("cat/0.png", "dog/0.png")] == ["cat", "dog"]


class Vanishing:
    """A dataset of which images are deleted or edited between the reading that plans and the one that computes."""

    def __init__(self, folder):
        self.paths = sorted(folder.rglob("*.png"))
        self.ids, self.labels = [path.name for path in self.paths], [path.parent.name for path in self.paths]
        self.reads = 0

    def read(self, i):
        self.reads += 1
        if self.reads == len(self.paths) + 1:
            self.paths[3].unlink()
            self.paths[5].write_bytes(self.paths[6].read_bytes())
        return self.paths[i].read_bytes()


def test_row_16_images_deleted_or_edited_during_the_run_cost_themselves(tmp_path):
    photos = album(tmp_path / "photos")
    oracle = rows_by_content(run(photos, tmp_path / "oracle").tables[0])
    changing = Vanishing(photos)

    done = run(changing, tmp_path / "cache", max_errors="50%")

    errors = dict(done.tables[0].errors)
    assert set(errors) == {changing.ids[3], changing.ids[5]}
    assert "changed while featx was reading it" in errors[changing.ids[5]]
    assert rows_by_content(done.tables[0]).items() <= oracle.items()
    assert len(done.tables[0]) == 10


def png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_row_20_hostile_members_of_an_archive_are_refused_and_nothing_is_unpacked(tmp_path, monkeypatch):
    def member(name, kind=tarfile.REGTYPE, target=""):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    hostile = {
        "../evil.png": member("../evil.png"),
        "/tmp/evil.png": member("/tmp/evil.png"),
        "link.png": member("link.png", tarfile.SYMTYPE, "/etc/passwd"),
        "hard.png": member("hard.png", tarfile.LNKTYPE, "cat/0.png"),
        "null.png": member("null.png", tarfile.CHRTYPE),
        "pipe.png": member("pipe.png", tarfile.FIFOTYPE),
        "cat/0.png": member("cat/0.png"),
    }
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number, info in enumerate([member("cat/0.png"), *hostile.values(), member("dog/1.png")]):
            data = png(number)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)

    done = run(tmp_path / "x.tar", tmp_path / "cache", max_errors="100%")

    table = done.tables[0]
    assert sorted(table.ids) == ["cat/0.png", "dog/1.png"]
    assert len(table.errors) == len(hostile)
    assert all(reason.startswith("refused: ") for _, reason in table.errors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "here", "x.tar"]
    assert not list((tmp_path / "here").iterdir())
    assert not Path("/tmp/evil.png").exists()


def test_row_23_paths_out_of_the_folder_are_refused_unless_allowed(tmp_path, capsys):
    photo(tmp_path / "secret.png", 1)
    photo(tmp_path / "images" / "a.png", 2)
    (tmp_path / "link.csv").write_text("path,label\na.png,cat\nlink.png,dog\n")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    for number, cell in enumerate(["../secret.png", str(tmp_path / "secret.png"), "b/../../secret.png"]):
        (tmp_path / f"{number}.csv").write_text(f"path,label\na.png,cat\n{cell},dog\n")
        command = ["extract", str(tmp_path / f"{number}.csv"), "--images", str(tmp_path / "images"), *NETWORK, "--json"]
        command += ["--cache", str(tmp_path / "cache"), "--workers", "0"]

        assert main(command) == 1
        assert "--allow-outside" in json.loads(capsys.readouterr().out)["error"]["message"]
        assert not list((tmp_path / "cache").rglob("*.h5"))
        assert main([*command, "--allow-outside"]) == 0
        assert json.loads(capsys.readouterr().out)["images"] == 2
        shutil.rmtree(tmp_path / "cache")


def test_row_26_nothing_at_all_is_said_plainly(tmp_path):
    (tmp_path / "photos").mkdir()

    with pytest.raises(DataError, match="No images in"):
        run(tmp_path / "photos", tmp_path / "cache")
    np.savez(tmp_path / "none.npz", X=np.zeros((0, 8, 8, 3), np.uint8), y=[])
    with pytest.raises(DataError):
        run(tmp_path / "none.npz", tmp_path / "cache")


def test_row_26_one_class_and_no_labels_extract_and_say_why_they_cannot_be_fitted(tmp_path):
    one = run(album(tmp_path / "one", classes=("cat",)), tmp_path / "cache").tables[0]
    (tmp_path / "flat").mkdir()
    for number in range(3):
        photo(tmp_path / "flat" / f"{number}.png", number)
    none = run(tmp_path / "flat", tmp_path / "cache").tables[0]

    assert (one.classes, set(one.y.tolist())) == (("cat",), {0})
    assert (none.classes, set(none.y.tolist())) == ((), {-1})
    with pytest.raises(DataError, match="at least two classes to train on, got one: 'cat'"):
        featx.fit(one, head="centroid")
    with pytest.raises(DataError, match="label"):
        featx.fit(none, head="centroid")


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_row_26_one_image_a_class_and_ten_thousand_classes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", X=pixels, y=np.arange(10_000)[::-1])

    table = run(tmp_path / "many.npz", tmp_path / "cache", batch_size=500).tables[0]

    assert len(table.classes) == len(table) == 10_000
    assert [table.classes[label] for label in table.y] == [str(label) for label in range(9_999, -1, -1)]
    assert featx.fit(table, head="centroid").classes == table.classes


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([3, 1, 3, -7], ("-7", "1", "3")),
        ([True, False, True, True], ("False", "True")),
        (["猫", "naïve café", "猫", "🐈"], ("naïve café", "猫", "🐈")),
        (["a", None, "b", ""], ("a", "b")),
    ],
    ids=["ints", "bools", "Unicode", "partly unlabelled"],
)
def test_row_26_labels_of_any_kind(tmp_path, labels, classes):
    (tmp_path / "images").mkdir()
    lines = [
        f"{photo(tmp_path / 'images' / f'{i}.png', i).name},{'' if label is None else label}"
        for i, label in enumerate(labels)
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n", encoding="utf-8")

    table = run(tmp_path / "labels.csv", tmp_path / "cache", dataset={"images": tmp_path / "images"}).tables[0]

    there = [str(label) if label not in (None, "") else None for label in labels]
    assert set(table.classes) == set(classes)
    assert [table.classes[label] if label >= 0 else None for label in table.y] == there
