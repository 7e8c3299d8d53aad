"""Folders, lists, arrays, splits and names: which rows come of what a user gives."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy_images import labels_of, png, tree

from featx.datasets import UNLABELLED, Dataset, item_id, open_dataset, shared_across_splits
from featx.datasets.labels import encode_labels
from featx.datasets.splits import ValidationShare, draw_validation
from featx.errors import DataError, FeatxError, ImageError, MissingDataError, OptionError
from featx.images import decode


def write(root: Path, files: dict[str, str]) -> None:
    """Files of any content."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def splits_of(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.ids, dataset.splits.tolist(), strict=True))


# Folders


def test_class_folders(tmp_path):
    dataset = open_dataset(tree(tmp_path, "dogs/2.jpg", "cats/1.jpg", "dogs/1.jpg"))

    assert list(dataset.ids) == ["cats/1.jpg", "dogs/1.jpg", "dogs/2.jpg"]
    assert dataset.classes == ("cats", "dogs")
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.labels.dtype == np.int64
    assert dataset.splits.tolist() == [""] * 3
    assert dataset.notes == ()
    assert [dataset.read(i) for i in range(3)] == [png(1), png(2), png(0)]


def test_class_is_the_first_folder_however_deep_the_image_lies(tmp_path):
    dataset = open_dataset(tree(tmp_path, "cats/old/black/1.jpg", "cats/2.jpg", "dogs/3.jpg"))

    assert labels_of(dataset) == {"cats/2.jpg": "cats", "cats/old/black/1.jpg": "cats", "dogs/3.jpg": "dogs"}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Valid"])
def test_split_folders_over_class_folders(tmp_path, val):
    names = "train/cats/1.jpg", "train/dogs/2.jpg", f"{val}/cats/3.jpg", "test/dogs/old/4.jpg"
    dataset = open_dataset(tree(tmp_path, *names))

    assert dataset.classes == ("cats", "dogs")
    assert splits_of(dataset) == dict(zip(names, ["train", "train", "val", "test"], strict=True))
    assert [labels_of(dataset)[name] for name in names] == ["cats", "dogs", "cats", "dogs"]


def test_unlabelled_test_folder_beside_labelled_training_folders(tmp_path):
    dataset = open_dataset(tree(tmp_path, "train/cats/1.jpg", "train/dogs/2.jpg", "test/3.jpg"))

    assert labels_of(dataset)["test/3.jpg"] is None
    assert splits_of(dataset)["test/3.jpg"] == "test"
    assert dataset.notes == ("Images in no class folder, and so without a label: 1.",)


def test_class_that_is_called_train_is_a_class(tmp_path):
    dataset = open_dataset(tree(tmp_path, "bus/1.jpg", "train/2.jpg"))

    assert dataset.classes == ("bus", "train")
    assert dataset.splits.tolist() == ["", ""]


def test_flat_folder_is_unlabelled(tmp_path):
    dataset = open_dataset(tree(tmp_path, "b.jpg", "a.jpg"))

    assert list(dataset.ids) == ["a.jpg", "b.jpg"]
    assert dataset.classes == ()
    assert dataset.labels.tolist() == [UNLABELLED] * 2


def test_flat_folder_with_a_table_is_told_of_it(tmp_path):
    (tree(tmp_path, "a.jpg") / "labels.csv").write_text("id,label\na,cat\n")

    assert f"{tmp_path / 'labels.csv'} --images {tmp_path}" in open_dataset(tmp_path).notes[0]


def test_unicode_spaces_and_mixed_case_are_fine(tmp_path):
    names = "日本 犬/ä b.JPG", "日本 犬/Ω.Jpeg", "chats d'été/1.PNG"
    dataset = open_dataset(tree(tmp_path, *names))

    assert set(dataset.ids) == set(names)
    assert dataset.classes == ("chats d'été", "日本 犬")
    assert all(isinstance(data, bytes) for _, data in dataset.iterate(range(3)))


def test_decomposed_names_become_composed_ids_that_still_read(tmp_path):
    dataset = open_dataset(tree(tmp_path, unicodedata.normalize("NFD", "été/é.jpg")))

    assert list(dataset.ids) == [unicodedata.normalize("NFC", "été/é.jpg")]
    assert dataset.classes == (unicodedata.normalize("NFC", "été"),)
    assert dataset.read(0) == png(0)


def test_names_that_differ_only_in_composition_stay_two(tmp_path):
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    dataset = open_dataset(tree(tmp_path, *names))

    assert len(set(dataset.ids)) == 2


def test_name_that_is_no_unicode_is_escaped_and_read(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.jpg")).write_bytes(png(7))
    dataset = open_dataset(tmp_path)

    assert list(dataset.ids) == ["a\\xff.jpg"]
    assert dataset.read(0) == png(7)


def test_hidden_files_and_folders_are_left_out(tmp_path):
    names = "a/1.jpg", "a/.2.jpg", ".git/3.jpg", "a/._4.jpg", "__MACOSX/a/5.jpg"

    assert list(open_dataset(tree(tmp_path, *names)).ids) == ["a/1.jpg"]


def test_other_files_are_counted(tmp_path):
    tree(tmp_path, "a/1.jpg")
    for name in ("a/Thumbs.db", "a/x.txt", "a/y.txt", "README"):
        (tmp_path / name).write_text("text")

    assert open_dataset(tmp_path).notes == ("Left out, as no images: 2 .txt, 1 without a suffix, 1 .db.",)


def test_images_without_a_suffix_are_known_by_their_content(tmp_path):
    assert list(open_dataset(tree(tmp_path, "a/f00d", "a/LICENSE.jpg")).ids) == ["a/LICENSE.jpg", "a/f00d"]


def test_jpeg_that_is_named_png_is_a_jpeg(tmp_path):
    Image.new("RGB", (9, 8)).save(tmp_path / "a.png", "JPEG")

    assert decode(open_dataset(tmp_path).read(0)).size == (9, 8)


def test_photo_of_a_kind_that_is_not_read_is_listed_and_not_forgotten(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    dataset = open_dataset(tmp_path)

    with pytest.raises(ImageError, match="HEIC"):
        decode(dataset.read(0))


def test_links_to_files_and_folders_are_followed_and_loops_are_not(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "1.jpg")
    root = tree(tmp_path / "photos", "cats/1.jpg")
    (root / "cats/linked.jpg").symlink_to(elsewhere / "1.jpg")
    (root / "dogs").symlink_to(elsewhere)
    (root / "cats/again").symlink_to(root)
    dataset = open_dataset(root)

    assert list(dataset.ids) == ["cats/1.jpg", "cats/linked.jpg", "dogs/1.jpg"]
    assert dataset.notes == ("Links to a folder around them were not followed: cats/again.",)


def test_broken_link_is_an_image_that_cannot_be_read(tmp_path):
    tree(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "nowhere")
    results = dict(open_dataset(tmp_path).iterate([0, 1]))

    assert results[0] == png(0)
    assert str(results[1]) == "cannot be read (No such file or directory)"
    assert results[1].transient


def test_pipes_and_other_specials_are_left_alone(tmp_path):
    os.mkfifo(tree(tmp_path, "a.jpg") / "b.jpg")

    assert list(open_dataset(tmp_path).ids) == ["a.jpg"]


def test_image_that_is_deleted_during_the_run_is_an_error_entry(tmp_path):
    dataset = open_dataset(tree(tmp_path, "a.jpg", "b.jpg", "c.jpg"))
    results = dataset.iterate(range(3))
    next(results)
    (tmp_path / "b.jpg").unlink()

    assert [type(result) for _, result in results] == [ImageError, bytes]


def test_giant_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(2**31)

    with pytest.raises(ImageError, match="2,147,483,648 bytes, more than the 1,073,741,824"):
        open_dataset(tmp_path).read(0)


def test_order_does_not_depend_on_the_file_system(tmp_path):
    names = [f"c{k % 7}/{k * 7919 % 100:03d}.jpg" for k in range(100)]

    assert list(open_dataset(tree(tmp_path, *names)).ids) == sorted(names)


def test_one_class_with_folders_in_it_gives_a_hint(tmp_path):
    dataset = open_dataset(tree(tmp_path, "flowers/roses/1.jpg", "flowers/tulips/1.jpg"))

    assert dataset.notes == (
        "There is one class only, 'flowers'. If the folders in it are the classes, give that folder.",
    )


@pytest.mark.parametrize("n", [1, 1_000])
def test_any_number_of_classes(tmp_path, n):
    dataset = open_dataset(tree(tmp_path, *(f"class {k:05d}/1.jpg" for k in range(n))))

    assert len(dataset.classes) == n
    assert dataset.labels.tolist() == list(range(n))


# Stamps


def test_stamps_change_with_the_file_and_with_nothing_else(tmp_path):
    tree(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    before = open_dataset(tmp_path).stamps()
    again = open_dataset(tmp_path).stamps()
    (tmp_path / "b.jpg").write_bytes(png(77) + b"longer")
    os.utime(tmp_path / "c.jpg", ns=(1, 1))
    (tmp_path / "d.jpg").unlink()
    after = open_dataset(tmp_path).stamps()

    assert before.shape == (4, 16)
    assert before.dtype == np.uint8
    assert np.array_equal(before, again)
    assert (before[:3] == after).all(axis=1).tolist() == [True, False, False]
    assert len(np.unique(before, axis=0)) == 4


def test_stamp_of_a_missing_file_is_no_error(tmp_path):
    dataset = open_dataset(tree(tmp_path, "a.jpg"))
    before = dataset.stamps()
    (tmp_path / "a.jpg").unlink()

    assert not np.array_equal(dataset.stamps(), before)


# What is wrong with a folder


def test_missing_path_names_the_nearest(tmp_path):
    (tmp_path / "photos").mkdir()

    with pytest.raises(
        MissingDataError, match=rf"no such file or folder: '{tmp_path}/fotos'\. Did you mean '.*/photos'"
    ):
        open_dataset(tmp_path / "fotos")
    with pytest.raises(MissingDataError, match=r"DATA is a folder of images, labels\.csv .* or digits"):
        open_dataset(tmp_path / "zzz")


def test_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match=rf"No images in {tmp_path}\. DATA is a folder of images"):
        open_dataset(tmp_path)


def test_folder_of_other_things_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=r"No images in .*Left out, as no images: 1 \.txt"):
        open_dataset(tmp_path)
    (tmp_path / "labels.csv").write_text("id,label\n")
    with pytest.raises(DataError, match=r"There is labels\.csv: give that file as DATA"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("photos.zip", "unpack it, and give the folder"),
        ("table.h5", "a table of features goes to featx fit"),
        ("a.txt", "DATA is"),
    ],
)
def test_file_of_another_kind_gets_advice(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"?")

    with pytest.raises(DataError, match=advice):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    "options", [{"label_column": "a"}, {"images": "."}, {"allow_outside": True}, {"split_column": "a"}], ids=str
)
def test_options_that_do_not_fit_a_folder_are_refused(tmp_path, options):
    with pytest.raises(OptionError, match="not with this DATA"):
        open_dataset(tree(tmp_path, "a.jpg"), **options)


def test_labels_beside_a_folder_are_refused(tmp_path):
    with pytest.raises(OptionError, match="labels= goes with a list or an array of images"):
        open_dataset(tree(tmp_path, "a.jpg"), labels=[1])


def test_folder_of_images_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MissingDataError, match=r"--images: no such folder: '.*/nowhere'"):
        open_dataset(tmp_path, images=tmp_path / "nowhere")


# Lists and arrays


def test_list_of_paths_keeps_its_order_and_takes_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, "a.jpg", "b.jpg"))
    dataset = open_dataset(["b.jpg", Path("a.jpg"), "b.jpg"], labels=["x", None, "y"])

    assert list(dataset.ids) == ["b.jpg", "a.jpg", "b.jpg"]
    assert dataset.labels.tolist() == [0, -1, 1]
    assert [data for _, data in dataset.iterate(range(3))] == [png(1), png(0), png(1)]
    assert dataset.stamps().shape == (3, 16)


def test_one_image_file_is_a_dataset(tmp_path):
    dataset = open_dataset(tree(tmp_path, "photo.JPG") / "photo.JPG")

    assert len(dataset) == 1
    assert dataset.read(0) == png(0)


def test_array_of_strings_is_a_list_of_paths(tmp_path):
    path = str(tree(tmp_path, "a.jpg") / "a.jpg")

    assert open_dataset(np.array([path])).read(0) == png(0)
    assert open_dataset(np.array([path], dtype=object)).read(0) == png(0)


def test_folder_in_a_list_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds the folder"):
        open_dataset([str(tmp_path)])


def test_pillow_images_arrays_and_encoded_images():
    grey = Image.new("L", (3, 2), 9)
    objects = [grey, np.full((2, 3, 3), 5, np.uint8), png(3), np.full((2, 3), 0.5)]
    dataset = open_dataset(objects, labels=[True, False, True, None])
    read = dict(dataset.iterate(range(4)))

    assert list(dataset.ids) == ["0", "1", "2", "3"]
    assert dataset.classes == ("False", "True")
    assert dataset.labels.tolist() == [1, 0, 1, -1]
    assert read[0].tolist() == [[[9, 9, 9]] * 3] * 2
    assert np.array_equal(read[1], objects[1])
    assert read[2] == png(3)
    assert read[3].tolist() == [[128] * 3] * 2
    assert dataset.stamps() is None


def test_list_of_something_else_is_refused():
    with pytest.raises(DataError, match="Image 1 is of type int"):
        open_dataset([png(), 3])
    with pytest.raises(DataError, match="The list of images is empty"):
        open_dataset([])
    with pytest.raises(DataError, match="An object of type int is no dataset"):
        open_dataset(3)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3), (4, 5, 6, 4)])
def test_uint8_arrays_are_read_as_they_are(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    dataset = open_dataset(pixels, labels=np.array([[3], [5], [3], [-1]]))

    assert np.array_equal([data for _, data in dataset.iterate(range(4))], pixels)
    assert dataset.classes == ("3", "5")
    assert dataset.labels.tolist() == [0, 1, 0, -1]


def test_floats_in_0_to_1_are_scaled_and_rounded():
    pixels = np.array([[[0.0, 0.5, 1.0, 0.1]]])

    assert open_dataset(pixels).read(0).tolist() == [[0, 128, 255, 26]]
    assert open_dataset(pixels.astype(np.float32)).read(0).dtype == np.uint8


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((1, 2, 2), 255.0), r"floats from 255 to 255; they must lie in 0–1. Scale it: X / 255"),
        (np.full((1, 2, 2), -0.1), "floats from -0.1"),
        (np.full((1, 2, 2), np.nan), "floats from nan"),
        (np.zeros((1, 2, 2), np.int64), r"must be uint8, or floats in 0–1; got int64. Convert it: X.astype\('uint8'\)"),
        (np.full((1, 2, 2), np.nan), "they must lie in 0–1. Leave those images out"),
        (np.full((1, 2, 2), 60_000, np.uint16), "got uint16. Scale it: X / 65535"),
        (np.full((1, 2, 2), 300, np.int32), r"got int32. Scale it: X / X.max\(\)"),
        (np.zeros((8, 9, 3), np.uint8), r"looks like one image in colour: X\[np.newaxis\]"),
        (np.zeros((1, 2, 2), np.uint16), "got uint16"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"got \(2, 3, 8, 8\). Put the channels last"),
        (np.zeros((2, 8, 8, 2), np.uint8), r"got \(2, 8, 8, 2\)"),
        (np.zeros((2, 64), np.uint8), r"got \(2, 64\)"),
        (np.zeros((0, 8, 8), np.uint8), r"got \(0, 8, 8\)"),
    ],
)
def test_arrays_that_are_no_images_are_refused(pixels, message):
    with pytest.raises(DataError, match=message):
        open_dataset(pixels)


def test_one_hot_labels_are_understood():
    assert open_dataset(np.zeros((3, 2, 2), np.uint8), labels=np.eye(4, dtype=int)[[2, 0, 2]]).classes == ("0", "2")


def test_labels_of_another_length_are_refused():
    with pytest.raises(DataError, match="The labels must be one an image, 3; got 2"):
        open_dataset(np.zeros((3, 2, 2), np.uint8), labels=[0, 1])


def test_digits_are_always_there():
    dataset = open_dataset("digits")

    assert len(dataset) == 1797
    assert dataset.classes == tuple("0123456789")
    assert dataset.read(0).shape == (8, 8)
    assert max(dataset.read(i).max() for i in range(20)) == 255
    assert dataset.name.startswith("digits-")


class Camera:
    """Somebody else's dataset: the least that featx asks for."""

    ids = ("front", "back")
    labels = (1, 0)

    def read(self, i):
        if i == 1:
            raise OSError("no signal")
        return np.zeros((2, 2, 3), np.uint8)


def test_anything_with_ids_labels_and_read_is_a_dataset():
    dataset = open_dataset(Camera())
    read = dict(dataset.iterate([0, 1]))

    assert list(dataset.ids) == ["front", "back"]
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.classes == ("0", "1")
    assert read[0].shape == (2, 2, 3)
    assert str(read[1]) == "cannot be read (no signal)"
    assert dataset.stamps() is None
    assert dataset.name.startswith("camera-")


def test_classes_of_somebody_else_s_dataset_are_kept():
    camera = Camera()
    camera.classes = ["night", "day"]

    assert labels_of(open_dataset(camera)) == {"front": "day", "back": "night"}
    camera.classes = ["night"]
    with pytest.raises(DataError, match="label 1 is none of the 1 classes"):
        open_dataset(camera)


def test_dataset_is_opened_as_it_is(tmp_path):
    dataset = open_dataset(tree(tmp_path, "a.jpg"))

    assert open_dataset(dataset) is dataset
    assert open_dataset(dataset, name="other").name.startswith("other-")


# Labels


@pytest.mark.parametrize(
    ("values", "classes", "labels"),
    [
        (["b", "a", None, ""], ("a", "b"), [1, 0, -1, -1]),
        (["10", "9", "09"], ("09", "9", "10"), [2, 1, 0]),
        ([2, 10, -1], ("2", "10"), [0, 1, -1]),
        ([1.0, float("nan"), 3.0], ("1", "3"), [0, -1, 1]),
        ([True, False], ("False", "True"), [1, 0]),
        ([True, 1], ("1", "True"), [1, 0]),
        ([np.int8(3), np.str_("x"), b"y"], ("3", "x", "y"), [0, 1, 2]),
        (["été", "e\u0301te\u0301"], ("été",), [0, 0]),
        (["None", " nan "], ("None", "nan"), [0, 1]),
        ([], (), []),
    ],
)
def test_labels_of_every_kind(values, classes, labels):
    numbers, names = encode_labels(values)

    assert names == classes
    assert numbers.tolist() == labels
    assert numbers.dtype == np.int64


def test_fractions_are_no_labels():
    with pytest.raises(DataError, match=r"must be a name or a whole number, got 0\.5"):
        encode_labels([0.5])


# Validation part


def contents(numbers) -> np.ndarray:
    """Hashes as of images with these numbers for their content; zeros for 0."""
    known = np.array([list(hashlib.sha256(str(k).encode()).digest()) for k in numbers], np.uint8).reshape(-1, 32)
    return known * (np.array(numbers) > 0)[:, None]


def draw(counts: dict[str, int], val, *, splits=None, seed=0, numbers=None, ids=None) -> np.ndarray:
    labels, classes = encode_labels([name for name, n in counts.items() for _ in range(n)])
    return draw_validation(
        ValidationShare.parse(val, seed),
        splits=np.full(len(labels), "") if splits is None else np.array(splits),
        labels=labels,
        classes=classes,
        item_ids=contents(range(1, len(labels) + 1) if numbers is None else numbers),
        ids=ids,
    )


@given(
    counts=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1),
    fraction=st.floats(0.02, 0.9),
    seed=st.integers(-2, 5),
)
def test_validation_part_is_a_share_of_each_class(counts, fraction, seed):
    splits = draw(counts, fraction, seed=seed)
    names = np.repeat(list(counts), list(counts.values()))

    assert set(splits) <= {"train", "val"}
    for name in counts:
        n_val = int((splits[names == name] == "val").sum())
        assert n_val < counts[name]
        assert abs(n_val - fraction * counts[name]) <= 1


@given(
    rows=st.lists(st.tuples(st.integers(1, 12), st.integers(-1, 2)), min_size=1, max_size=60),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 3),
)
def test_the_draw_goes_by_content_and_not_by_the_order_of_rows(rows, order, seed):
    """Identical images, under other labels or under none, come into one part."""

    def drawn(rows):
        numbers, labels = zip(*rows, strict=True)
        splits = draw_validation(
            ValidationShare(0.4, seed=seed),
            splits=np.full(len(rows), ""),
            labels=np.array(labels),
            classes="abc",
            item_ids=contents(numbers),
        )
        return {
            row: {split for other, split in zip(rows, splits.tolist(), strict=True) if other == row} for row in rows
        }

    first = drawn(rows)
    shuffled = list(rows)
    order.shuffle(shuffled)

    assert first == drawn(shuffled)
    parts = {}
    for (number, _), found in first.items():
        parts.setdefault(number, set()).update(found)
    assert all(len(part) == 1 for part in parts.values())


def test_rows_without_a_content_are_told_apart_by_their_ids():
    names = [f"row {k}" for k in range(40)]
    splits = draw({"a": 40}, 0.5, numbers=[0] * 40, ids=names)
    backwards = draw({"a": 40}, 0.5, numbers=[0] * 40, ids=names[::-1])

    assert (splits == "val").sum() == 20
    assert splits.tolist() == backwards[::-1].tolist()
    assert splits.tolist() != draw({"a": 40}, 0.5, numbers=[0] * 40).tolist()


def test_the_draw_stays_the_draw():
    """Another rule would take other rows from data that were used before."""
    assert np.flatnonzero(draw({"a": 10, "b": 10}, 0.3) == "val").tolist() == [3, 5, 6, 10, 11, 16]


def test_many_small_classes_together_give_the_fraction():
    splits = draw({f"class {k}": 4 for k in range(1000)}, "0.1")

    assert 340 < (splits == "val").sum() < 460


def test_validation_part_depends_on_the_seed_and_not_on_the_order(tmp_path):
    write(tmp_path, {f"{c}/{k}.jpg": f"{c} {k}" for c in "ab" for k in range(50)})
    first = splits_of(open_dataset(tmp_path, val="0.2"))
    other = splits_of(open_dataset(tmp_path, val="0.2", seed=1))
    write(tmp_path, {f"{c}/_new{k}.jpg": f"{c} new {k}" for c in "ab" for k in range(5)})
    grown = splits_of(open_dataset(tmp_path, val=0.2))

    assert list(first.values()).count("val") == 20
    assert first != other
    assert sum(grown[i] != split for i, split in first.items()) <= 4


def test_a_renamed_image_stays_in_its_part(tmp_path):
    write(tmp_path / "x", {f"a/{k}.jpg": str(k) for k in range(20)})
    write(tmp_path / "y", {f"a/{20 - k}.jpg": str(k) for k in range(20)})
    first, renamed = (open_dataset(tmp_path / folder, val="0.4") for folder in "xy")

    drawn = [{of.read(i) for i in np.flatnonzero(of.splits == "val")} for of in (first, renamed)]
    assert len(drawn[0]) == 8
    assert drawn[0] == drawn[1]


def test_last_rows_in_order():
    splits = draw({"a": 95, "b": 5}, "last:0.1")

    assert splits.tolist() == ["train"] * 90 + ["val"] * 10


def test_rows_for_test_and_validation_are_never_touched():
    given_splits = ["train"] * 10 + ["val"] * 10 + ["test"] * 10 + [""] * 10
    for val in ("0.5", "last:0.5"):
        splits = draw({"a": 40}, val, splits=given_splits)

        assert sorted(splits[:10]) == ["train"] * 5 + ["val"] * 5
        assert splits[10:].tolist() == given_splits[10:]


@pytest.mark.parametrize("val", ["0.5", "last:0.5"])
def test_unlabelled_rows_stay_in_training(val):
    splits = draw({"a": 10, "": 10}, val)

    assert (splits[:10] == "val").sum() == 5
    assert splits[10:].tolist() == ["train"] * 10


@pytest.mark.parametrize("val", ["0", "1", "1.5", "-0.1", "ten", "first:0.1", "last:", "nan", "last:2"])
def test_parts_that_are_none_are_refused(val):
    with pytest.raises(OptionError, match=r"--val must be a part between 0 and 1, as 0\.1 or last:0\.1"):
        open_dataset("digits", val=val)


def test_part_of_too_few_images_is_an_error():
    dataset = open_dataset(np.zeros((1, 1, 1), np.uint8), labels=["a"], val="0.1")

    with pytest.raises(DataError, match=r"--val 0\.1 of 1 training images is none. Take a larger part"):
        dataset.splits  # noqa: B018


# Images in two splits


def test_shared_images_are_counted_and_named():
    hashes = np.zeros((8, 32), np.uint8)
    hashes[:, 0] = [1, 2, 3, 1, 2, 4, 0, 0]  # the last two could not be read
    hashes[5, 31] = 1
    splits = np.array(["train", "train", "val", "test", "test", "test", "train", "test"])
    ids = list("abcdefgh")

    assert shared_across_splits(hashes, splits, ids) == [
        "2 images are in train and in test, for example a = d: scores on test are too good."
    ]


def test_duplicates_within_one_split_or_outside_of_all_are_no_leak():
    hashes = np.ones((4, 32), np.uint8)

    assert shared_across_splits(hashes, np.array(["train", "train", "", ""]), list("abcd")) == []
    assert shared_across_splits(hashes[:0], np.array([], dtype=str), []) == []


def test_every_pair_of_splits_is_told():
    hashes = np.ones((3, 32), np.uint8)
    sentences = shared_across_splits(hashes, np.array(["test", "train", "val"]), ["x", "y", "z"])

    assert [sentence.split(", for")[0] for sentence in sentences] == [
        "1 image is in train and in val",
        "1 image is in train and in test",
        "1 image is in val and in test",
    ]


# Names and identities


def test_folders_of_one_name_have_two_dataset_names(tmp_path):
    one, two = (open_dataset(tree(tmp_path / place / "My Fotos!", "a.jpg")).name for place in "xy")

    assert one != two
    assert one[:-8] == two[:-8] == "my-fotos-"
    assert one == open_dataset(tmp_path / "x" / "My Fotos!").name


def test_name_says_where_a_relative_path_leads(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path / "photos", "a.jpg"))

    assert open_dataset(".").name == open_dataset(tmp_path / "photos").name


def test_name_does_not_depend_on_what_is_in_the_folder_or_on_the_split(tmp_path):
    name = open_dataset(tree(tmp_path, "a/1.jpg")).name
    tree(tmp_path, "b/1.jpg", "b/2.jpg", "b/3.jpg")

    assert open_dataset(tmp_path, val="0.4").name == name


def test_arrays_and_lists_are_named_by_content():
    pixels = np.zeros((2, 3, 3), np.uint8)
    names = {
        open_dataset(pixels).name,
        open_dataset(pixels + 1).name,
        open_dataset(pixels, labels=[0, 1]).name,
        open_dataset(list(pixels)).name,
        open_dataset(list(pixels), labels=[0, 1]).name,
    }

    assert len(names) == 5
    assert open_dataset(pixels.copy()).name == open_dataset(pixels).name


@pytest.mark.parametrize("title", ["", "...", "日本", "A" * 500, "../../etc"])
def test_any_title_gives_a_safe_name(title):
    name = open_dataset(np.zeros((1, 2, 2), np.uint8), name=title).name

    assert len(name) <= 70
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name[0] not in ".-"


def test_item_ids_tell_content_and_nothing_else():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    ids = [item_id(x) for x in (b"a", b"b", pixels, pixels.T.copy(), pixels.reshape(6, 4), pixels.astype(np.int8))]

    assert len(set(ids)) == 6
    assert {len(one) for one in ids} == {32}
    assert item_id(pixels.T) == item_id(np.ascontiguousarray(pixels.T))


def test_every_error_is_a_featx_error_of_one_line(tmp_path):
    for source in (tmp_path, tmp_path / "x", 3, [], [1], np.zeros(3), "torchvision:Nothing"):
        with pytest.raises(FeatxError) as caught:
            open_dataset(source)
        assert "\n" not in str(caught.value)
