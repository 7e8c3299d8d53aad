"""Tar archives and WebDataset shards: streamed, never unpacked, and never trusted."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_images import labels_of, png

from featx.datasets import Dataset, open_dataset
from featx.datasets.tar import DAMAGE, Member, open_archive, walk
from featx.errors import DataError, FeatxError, ImageError, MissingDataError, OptionError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(
    path: Path, *members: str | tuple[str, bytes] | tarfile.TarInfo, mode: str = "w", form: int = tarfile.PAX_FORMAT
) -> Path:
    """Write an archive: names become images, each of its own colour; pairs and headers are taken as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as archive:
        for level, member in enumerate(members):
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, data = (member, png(level)) if isinstance(member, str) else member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read_all(dataset: Dataset) -> list:
    return [data for _, data in dataset.iterate(range(len(dataset)))]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
def test_class_folders_in_an_archive(tmp_path, form, suffix, mode):
    names = ["photos/dogs/1.jpg", "photos/cats/2.JPG", "photos/dogs/old/3.png"]
    dataset = open_dataset(pack(tmp_path / f"pets.{suffix}", *names, mode=mode, form=form))

    assert list(dataset.ids) == names
    assert labels_of(dataset) == dict(zip(names, ["dogs", "cats", "dogs"], strict=True))
    assert read_all(dataset) == [png(0), png(1), png(2)]
    assert dataset.read(1) == png(1)
    assert dataset.name.startswith("pets-")
    assert len(np.unique(dataset.stamps(), axis=0)) == 3


def test_splits_in_an_archive_are_found_below_what_surrounds_them(tmp_path):
    names = "./data/train/a/1.jpg", "./data/valid/a/2.jpg", "./data/test/b/3.jpg", "./data/train/b/4.jpg"
    dataset = open_dataset(pack(tmp_path / "x.tar", *names))

    assert dataset.splits.tolist() == ["train", "val", "test", "train"]
    assert dataset.classes == ("a", "b")


def test_archive_of_one_training_folder_keeps_its_split(tmp_path):
    dataset = open_dataset(pack(tmp_path / "x.tar", "data/train/a/1.jpg", "data/train/b/2.jpg"))

    assert dataset.splits.tolist() == ["train", "train"]
    assert dataset.classes == ("a", "b")


@pytest.mark.parametrize("names", [["1.jpg", "2.jpg"], ["images/1.jpg", "images/2.jpg"]], ids=["flat", "wrapped"])
def test_archive_without_class_folders_is_unlabelled(tmp_path, names):
    assert open_dataset(pack(tmp_path / "x.tar", *names)).labels.tolist() == [-1, -1]


def test_long_and_foreign_names(tmp_path):
    names = ["a/" + "långt/" * 40 + "x.jpg", "b/日本.jpg", "b/" + "y" * 150 + ".jpg"]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        dataset = open_dataset(pack(tmp_path / "x.tar", *names, form=form))

        assert list(dataset.ids) == names
        assert read_all(dataset) == [png(0), png(1), png(2)]


def test_other_members_are_counted_and_hidden_ones_left_out(tmp_path):
    members = ["a/1.jpg", ("a/notes.txt", b"x"), "a/._1.jpg", "__MACOSX/a/1.jpg", special("b", tarfile.DIRTYPE)]
    dataset = open_dataset(pack(tmp_path / "x.tar", *members))

    assert list(dataset.ids) == ["a/1.jpg"]
    assert dataset.notes == ("Left out, as no images: 1 members.",)


# WebDataset


def test_samples_take_their_label_from_cls_or_json(tmp_path):
    members = [
        "000.jpg", ("000.cls", b"3"),
        ("001.json", json.dumps({"caption": "x", "label": 10}).encode()), "001.left.png",
        "002.jpg", ("002.txt", b"caption"),
        "x/000.jpg", ("x/000.cls", b"3\n"),
    ]  # fmt: skip
    dataset = open_dataset(pack(tmp_path / "shard.tar", *members))

    assert labels_of(dataset) == {"000.jpg": "3", "001.left.png": "10", "002.jpg": None, "x/000.jpg": "3"}
    assert dataset.classes == ("3", "10")


def test_key_of_the_label_in_json_may_be_named(tmp_path):
    record = json.dumps({"label": 1, "kind": "owl"}).encode()
    path = pack(tmp_path / "shard.tar", "000.jpg", ("000.json", record))

    assert open_dataset(path, label_column="kind").classes == ("owl",)
    with pytest.raises(DataError, match=r"No \.json file of shard\.tar has a label under 'sort'"):
        open_dataset(path, label_column="sort")
    with pytest.raises(
        OptionError, match="An archive has no columns of images, splits, groups or items. Leave these options out"
    ):
        open_dataset(path, split_column="kind")
    assert open_dataset(path).classes == ("1",)


@pytest.mark.parametrize("record", [b"not json", b"[1]", b'{"label": {"a": 1}}', b"{}"])
def test_json_without_a_label_is_no_label(tmp_path, record):
    path = pack(tmp_path / "shard.tar", "000.jpg", ("000.json", record), "001.jpg", ("001.cls", b"cat"))

    assert labels_of(open_dataset(path)) == {"000.jpg": None, "001.jpg": "cat"}


@pytest.mark.parametrize(
    "source", ["shards/pets-{train,test}-{000..001}.tar", "shards/pets-*.tar", "shards/pets-t[re]*-00?.tar", "shards"]
)
def test_shards_by_braces_glob_or_folder(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(["train-000", "train-001", "test-000", "test-001"]):
        pack(tmp_path / f"shards/pets-{name}.tar", (f"{k}.jpg", png(k)), (f"{k}.cls", str(k % 2).encode()))
    dataset = open_dataset(source)

    assert {i: str(split) for i, split in zip(dataset.ids, dataset.splits, strict=True)} == {
        "pets-train-000/0.jpg": "train",
        "pets-train-001/1.jpg": "train",
        "pets-test-000/2.jpg": "test",
        "pets-test-001/3.jpg": "test",
    }
    assert read_all(dataset) == [png(int(i[-5])) for i in dataset.ids]
    assert dataset.name.startswith("shards-")
    assert dataset.read(3) == png(int(dataset.ids[3][-5]))


def test_split_of_a_shard_is_told_by_its_place_below_the_folder_only(tmp_path):
    root = tmp_path / "test" / "shards"
    for name in ("train/0.tar", "val/0.tar"):
        pack(root / name, "1.jpg")
    pack(tmp_path / "test" / "other" / "0.tar", "1.jpg")
    pack(tmp_path / "test" / "other" / "1.tar", "1.jpg")
    dataset = open_dataset(root)

    assert list(dataset.ids) == ["train/0/1.jpg", "val/0/1.jpg"]
    assert dataset.splits.tolist() == ["train", "val"]
    assert open_dataset(f"{root}/{{train,val}}/0.tar").splits.tolist() == ["train", "val"]
    assert open_dataset(tmp_path / "test" / "other").splits.tolist() == ["", ""]


def test_json_file_about_something_else_leaves_the_class_folders(tmp_path):
    path = pack(tmp_path / "x.tar", "a/1.jpg", "b/2.jpg", ("info.json", b'{"label": "no"}'))

    assert open_dataset(path).classes == ("a", "b")


def test_missing_shards_are_named(tmp_path):
    pack(tmp_path / "a-0.tar", "1.jpg")

    with pytest.raises(MissingDataError, match=r"2 of the 3 archives of '.*' are missing, .*a-1\.tar first"):
        open_dataset(f"{tmp_path}/a-{{0..2}}.tar")
    with pytest.raises(MissingDataError, match=r"No file is named like '.*b-\*\.tar'"):
        open_dataset(f"{tmp_path}/b-*.tar")


# Hostile and damaged archives


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("../evil.jpg", "its path leads out of the archive"),
        ("a/../../evil.jpg", "its path leads out of the archive"),
        ("/etc/evil.jpg", "its path leads out of the archive"),
        (special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), "a link, which is not followed"),
        (special("hard.jpg", tarfile.LNKTYPE, "good.jpg"), "a link, which is not followed"),
        (special("null.jpg", tarfile.CHRTYPE), "no ordinary file"),
        (special("disk", tarfile.BLKTYPE), "no ordinary file"),
        (special("pipe.jpg", tarfile.FIFOTYPE), "no ordinary file"),
        ("good.jpg", "a second member of that name"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_hostile_member_is_a_listed_error(tmp_path, member, reason):
    dataset = open_dataset(pack(tmp_path / "x.tar", "good.jpg", member, "also good.jpg"))
    before = sorted(tmp_path.iterdir())
    read = read_all(dataset)

    assert [str(data) for data in read if isinstance(data, ImageError)] == [f"refused: {reason}"]
    assert isinstance(read[1], ImageError)
    assert not read[1].transient
    assert [read[0], read[2]] == [png(0), png(2)]
    assert len(set(dataset.ids)) == 3
    assert sorted(tmp_path.iterdir()) == before


def test_member_that_claims_a_giant_size_is_not_read(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("a/giant.jpg")
    info.size = 2**40
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + png())
    (tmp_path / "y.tar").write_bytes(pack(tmp_path / "z.tar", "a/1.jpg").read_bytes()[:1024] + path.read_bytes())
    dataset = open_dataset(tmp_path / "y.tar")

    assert dataset.read(0) == png(0)
    with pytest.raises(ImageError, match="1,099,511,627,776 bytes, more than the 1,073,741,824"):
        dataset.read(1)


def header(name: str, size_field: bytes) -> bytes:
    """A header with any size and a right checksum."""
    data = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    data[124:136] = size_field
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"\xff" + b"\x00" * 11], ids=["-1", "2^88", "-2^88"]
)
def test_impossible_size_ends_the_listing_with_an_error(tmp_path, size):
    good = pack(tmp_path / "x.tar", "a/1.jpg", "a/2.jpg").read_bytes()[:2048]
    (tmp_path / "y.tar").write_bytes(good + header("a/3.jpg", size) + bytes(1024))
    dataset = open_dataset(tmp_path / "y.tar")

    assert list(dataset.ids) == ["a/1.jpg", "a/2.jpg", "y.tar"]
    with pytest.raises(ImageError, match=r"it is damaged after 2 members \(an impossible size"):
        dataset.read(2)


def test_extended_header_that_lies_is_an_error(tmp_path):
    records = [b"0 path=x\n", b"5\n", b"9999 path=x\n", b"x path=y\n", b"-3 a=b\n", b"29 size=99999999999999999999\n"]
    for record in records:
        info = special("PaxHeader", tarfile.XHDTYPE)
        info.size = len(record)
        body = record + bytes(512 - len(record))
        data = info.tobuf(tarfile.USTAR_FORMAT) + body + tarfile.TarInfo("a.jpg").tobuf() + bytes(1024)
        with pytest.raises(tarfile.TarError):
            list(walk(io.BytesIO(data)))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
@pytest.mark.parametrize("kept", [0.4, 0.75])
def test_truncated_archive_gives_what_it_has_and_one_error(tmp_path, mode, kept):
    noise = [np.random.default_rng(k).bytes(20_000) for k in range(20)]
    path = pack(tmp_path / "x.tar", *((f"a/{k:02d}.jpg", data) for k, data in enumerate(noise)), mode=mode)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    dataset = open_dataset(path)
    read = read_all(dataset)
    good = [data for data in read if isinstance(data, bytes)]

    assert 2 <= len(good) < 16
    assert good == noise[: len(good)]
    assert 1 <= len(read) - len(good) <= 2
    assert "damaged" in str(read[-1])


def test_damaged_header_in_the_middle_is_not_the_end(tmp_path):
    """The standard library's reader stops there without a word."""
    path = pack(tmp_path / "x.tar", "a/1.jpg", "a/2.jpg", "a/3.jpg")
    data = bytearray(path.read_bytes())
    data[1024 + 10] ^= 1
    path.write_bytes(data)

    assert list(open_dataset(path).ids) == ["a/1.jpg", "x.tar"]
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 1


@pytest.mark.parametrize("data", [b"", b"text, no archive", b"\x1f\x8bnonsense", bytes(10_240), b"x" * 2048])
def test_file_that_is_no_archive_is_refused(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)

    with pytest.raises(DataError, match=r"No image in x\.tar\.( x.tar: it is no tar archive, or a damaged one)?"):
        open_dataset(tmp_path / "x.tar")


def test_damaged_shard_does_not_cost_the_others(tmp_path):
    pack(tmp_path / "0.tar", "1.jpg")
    (tmp_path / "1.tar").write_bytes(b"\x1f\x8bnonsense")
    read = read_all(open_dataset(tmp_path))

    assert read[0] == png(0)
    assert str(read[1]).startswith("it is no tar archive, or a damaged one (")


def test_archive_of_nothing_but_refused_members_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No image in x\.tar\. /a\.jpg: refused: its path leads out"):
        open_dataset(pack(tmp_path / "x.tar", "/a.jpg"))


def test_archive_that_vanishes_costs_its_own_rows(tmp_path):
    for name in "ab":
        pack(tmp_path / f"{name}.tar", "1.jpg", "2.jpg")
    dataset = open_dataset(tmp_path)
    (tmp_path / "a.tar").unlink()
    read = read_all(dataset)

    assert [type(data) for data in read] == [ImageError, ImageError, bytes, bytes]
    assert str(read[0]) == "a.tar cannot be read (No such file or directory)"
    assert read[0].transient


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 4607), value=st.integers(0, 255))
def test_any_damaged_byte_gives_members_or_an_error(place, value):
    data = bytearray(ARCHIVE)
    data[place] = value
    found: list[Member] = []
    try:
        found.extend(walk(io.BytesIO(data)))
    except DAMAGE:
        found.append(Member("error", 0, 0, ""))

    assert len(found) <= 5


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/1.jpg", "ä/" * 60 + "2.jpg", "c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 100
            archive.addfile(info, io.BytesIO(bytes(100)))
    return buffer.getvalue()


ARCHIVE = _archive()


def test_walk_agrees_with_the_standard_library():
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE)) as archive:
        expected = [(info.name, info.offset_data, info.size, "") for info in archive]

    assert list(walk(io.BytesIO(ARCHIVE))) == expected


def test_compression_is_told_by_content(tmp_path):
    path = pack(tmp_path / "x.tar", "a/1.jpg", mode="w:gz")
    with open_archive(path) as file:
        assert [member.name for member in walk(file)] == ["a/1.jpg"]


def test_archives_are_read_forward_only(tmp_path):
    """A compressed archive is decompressed once: reading in order never seeks back."""
    pack(tmp_path / "x.tar.gz", *(f"a/{k:03d}.jpg" for k in range(50)), mode="w:gz")
    dataset = open_dataset(tmp_path / "x.tar.gz")
    with open_archive(tmp_path / "x.tar.gz") as file:
        offsets = [member.offset for member in walk(file)]

    assert offsets == sorted(offsets)
    assert [data for _, data in dataset.iterate(range(0, 50, 7))] == [png(k) for k in range(0, 50, 7)]


def test_errors_are_of_one_line(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"line\nline" * 200)
    with pytest.raises(FeatxError) as caught:
        open_dataset(tmp_path / "x.tar")
    assert "\n" not in str(caught.value)
