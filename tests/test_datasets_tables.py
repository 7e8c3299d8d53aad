"""CSV, npz, Parquet, torchvision and Hugging Face: tables of labels and images."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_images import labels_of, png, tree

from featx.datasets import open_dataset
from featx.errors import DataError, ImageError, MissingExtraError, UnknownNameError


def csv(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# CSV


def test_id_and_breed_without_extension(tmp_path):
    tree(tmp_path / "train", "b.jpg", "a.jpg")
    dataset = open_dataset(csv(tmp_path / "labels.csv", "id,breed\nb,poodle\na,boxer\n"), images=tmp_path / "train")

    assert list(dataset.ids) == ["b", "a"]
    assert dataset.classes == ("boxer", "poodle")
    assert dataset.labels.tolist() == [1, 0]
    assert [data for _, data in dataset.iterate([0, 1])] == [png(0), png(1)]
    assert dataset.stamps().shape == (2, 16)
    assert dataset.notes == ("labels.csv: images from column 'id', labels from 'breed'.",)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_byte_order_marks(tmp_path, separator, encoding):
    tree(tmp_path, "ä.jpg", "b.jpg")
    text = separator.join(["file", "class"]) + "\r\n" + separator.join(["ä.jpg", "Hündin"]) + "\r\n\r\n"
    dataset = open_dataset(csv(tmp_path / "t.csv", text + separator.join(['"b.jpg"', ""]) + "\r\n", encoding))

    assert labels_of(dataset) == {"ä.jpg": "Hündin", "b.jpg": None}


@pytest.mark.parametrize("image", ["id", "file", "path", "filename", "Image", "IMAGE_ID"])
@pytest.mark.parametrize("label", ["label", "Class", "breed", "target", "category"])
def test_columns_are_known_by_their_names(tmp_path, image, label):
    tree(tmp_path, "a.jpg")
    dataset = open_dataset(csv(tmp_path / "t.csv", f"x,{label},{image},z\n1,cat,a,2\n"))

    assert labels_of(dataset) == {"a": "cat"}


def test_columns_may_be_named(tmp_path):
    tree(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    text = "id,photo,label,kind,part\n1,a,x,cat,Training\n2,b,y,dog,valid\n3,c,z,dog,train\n"
    path = csv(tmp_path / "t.csv", text)
    options = {"image_column": "photo", "label_column": "kind", "split_column": "part"}
    dataset = open_dataset(path, **options)

    assert labels_of(dataset) == {"a": "cat", "b": "dog", "c": "dog"}
    assert dataset.splits.tolist() == ["train", "val", "train"]
    with pytest.raises(
        DataError, match=r"t\.csv has no column 'sort'\. It has: id, photo, label, kind, part\. Change --label"
    ):
        open_dataset(path, label_column="sort")


def test_one_other_column_is_the_label(tmp_path):
    tree(tmp_path, "a.jpg")

    assert labels_of(open_dataset(csv(tmp_path / "t.csv", "id,weather\na,rain\n"))) == {"a": "rain"}


def test_several_unknown_columns_are_no_label_and_this_is_said(tmp_path):
    tree(tmp_path, "a.jpg")
    dataset = open_dataset(csv(tmp_path / "t.csv", "id,age,sex\na,4,f\n"))

    assert dataset.classes == ()
    assert dataset.notes == ("t.csv: images from column 'id', no labels; name their column: --label-column age|sex.",)


def test_a_split_of_another_name_is_an_error(tmp_path):
    tree(tmp_path, "a.png", "b.png")

    with pytest.raises(DataError, match=r"'split' has the split 'holdout' in 1 rows\. Write train, val or test"):
        open_dataset(csv(tmp_path / "t.csv", "id,label,split\na,x,training\nb,y,holdout\n"))


def test_two_columns_of_one_name_are_an_error(tmp_path):
    tree(tmp_path, "a.png")

    with pytest.raises(DataError, match="more than one column 'label'"):
        open_dataset(csv(tmp_path / "t.csv", "id,label,label\na,x,y\n"))


def test_split_column_is_read(tmp_path):
    tree(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    dataset = open_dataset(csv(tmp_path / "t.csv", "id,label,split\na,x,train\nb,y,validation\nc,x,\n"))

    assert dataset.splits.tolist() == ["train", "val", ""]


def test_ids_find_their_files_in_folders(tmp_path):
    tree(tmp_path / "images", "part1/a.jpg", "part2/b.png", "c/d.jpg", "e.v2.jpg", "unused.jpg")
    text = "id,label\na,1\nb.png,2\nc/d,3\n./e.v2,4\nc\\d.jpg,5\n"
    dataset = open_dataset(csv(tmp_path / "t.csv", text), images=tmp_path / "images")

    assert [data for _, data in dataset.iterate(range(5))] == [png(0), png(1), png(2), png(3), png(2)]
    assert dataset.notes[1:2] == (f"1 images in {tmp_path / 'images'} are not in t.csv and were left out.",)


def test_id_that_fits_two_files_is_an_error(tmp_path):
    tree(tmp_path, "a.jpg", "a.png")

    with pytest.raises(DataError, match=r"t.csv: 'a' may be a\.jpg or a\.png\. Write its path in full"):
        open_dataset(csv(tmp_path / "t.csv", "id,label\na,1\n"))


def test_id_in_two_rows_is_an_error(tmp_path):
    tree(tmp_path, "a.jpg")

    with pytest.raises(DataError, match=r"t.csv: 'a' is in row 2 and in row 4\. Keep one row an image"):
        open_dataset(csv(tmp_path / "t.csv", "id,label\na,1\nb,2\na,1\n"))


def test_some_missing_files_are_error_entries(tmp_path):
    tree(tmp_path, "a.jpg")
    dataset = open_dataset(csv(tmp_path / "t.csv", "id,label\na,1\nlost,2\n"))
    read = dict(dataset.iterate([0, 1]))

    assert dataset.notes[1] == f"1 images of t.csv are not in {tmp_path}."
    assert read[0] == png(0)
    assert str(read[1]) == "cannot be read (No such file or directory)"


def test_no_file_at_all_asks_for_the_folder(tmp_path):
    tree(tmp_path / "images", "z.jpg")
    path = csv(tmp_path / "t.csv", "id,label\na,1\nb,2\n")

    with pytest.raises(DataError, match=rf"None of the 2 images of t.csv is in {tmp_path}.*: --images DIR"):
        open_dataset(path)


@pytest.mark.parametrize("outside", ["../secret.jpg", "a/../../secret.jpg", "{root}/secret.jpg", "..\\secret.jpg"])
def test_paths_out_of_the_folder_are_refused_unless_allowed(tmp_path, outside):
    tree(tmp_path, "secret.jpg", "images/a.jpg")
    cell = outside.format(root=tmp_path)
    path = csv(tmp_path / "t.csv", f"path,label\na.jpg,1\n{cell},2\n")

    with pytest.raises(DataError, match=r"1 of its paths lead out of .*/images, .* first\. If you trust the file"):
        open_dataset(path, images=tmp_path / "images")
    dataset = open_dataset(path, images=tmp_path / "images", allow_outside=True)

    assert [data for _, data in dataset.iterate([0, 1])] == [png(1), png(0)]


def test_absolute_paths_within_the_folder_are_fine(tmp_path):
    tree(tmp_path, "images/a.jpg", "images-2/b.jpg")
    inside = csv(tmp_path / "t.csv", f"path,label\n{tmp_path}/images/a.jpg,1\n")

    assert open_dataset(inside, images=tmp_path / "images").read(0) == png(0)
    with pytest.raises(DataError, match="lead out"):
        open_dataset(csv(tmp_path / "u.csv", f"path,label\n{tmp_path}/images-2/b.jpg,1\n"), images=tmp_path / "images")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv has no rows below its header"),
        ("id,label\n", "t.csv has no rows below its header"),
        ("id,label\na,b,c\n", "t.csv, row 2 has 3 cells where the header has 2. Put cells that hold a comma in quotes"),
        ("a.jpg,cat\nb.jpg,dog\n", "which column holds the images. It has: a.jpg, cat.*or add a header line: id,label"),
        ('id,label\n"a"b,c\n', "t.csv is not a CSV file"),
    ],
)
def test_files_that_are_no_such_table_are_refused(tmp_path, text, message):
    tree(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=message):
        open_dataset(csv(tmp_path / "t.csv", text))


def test_other_encodings_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv is not UTF-8 text\. Save it as UTF-8"):
        open_dataset(csv(tmp_path / "t.csv", "id,label\nä,1\n", "latin-1"))


def test_two_label_sets_over_the_same_images_have_two_names(tmp_path):
    tree(tmp_path, "a.jpg")
    path = csv(tmp_path / "labels.csv", "id,kind,age\na,cat,old\n")
    names = {open_dataset(path, label_column=label).name for label in ("kind", "age")}

    assert len(names) == 2
    assert {name[:-8] for name in names} == {"labels-"}


# npz


def test_npz_with_x_and_y(tmp_path):
    X = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "a.npz", X=X, y=np.array([[2], [7], [2], [2], [7]]))
    dataset = open_dataset(tmp_path / "a.npz")

    assert list(dataset.ids) == ["0", "1", "2", "3", "4"]
    assert dataset.classes == ("2", "7")
    assert dataset.labels.tolist() == [0, 1, 0, 0, 1]
    assert dataset.splits.tolist() == [""] * 5
    assert np.array_equal([data for _, data in dataset.iterate(range(5))], X)
    assert len(np.unique(dataset.stamps(), axis=0)) == 5


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz_with_splits(tmp_path, names):
    train, test = np.full((3, 4, 4), 0.5), np.zeros((2, 5, 5), np.uint8)
    arrays = [train, np.array(["a", "b", "a"]), test, np.array(["b", "c"])]
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    dataset = open_dataset(tmp_path / "a.npz")
    read = [data for _, data in dataset.iterate(range(5))]

    assert list(dataset.ids) == ["train/0", "train/1", "train/2", "test/0", "test/1"]
    assert dataset.splits.tolist() == ["train"] * 3 + ["test"] * 2
    assert labels_of(dataset) == dict(zip(dataset.ids, "ababc", strict=True)) | {"train/2": "a", "test/0": "b"}
    assert read[0].tolist() == [[128] * 4] * 4
    assert read[4].shape == (5, 5)


def test_npz_may_lack_labels_and_may_name_classes(tmp_path):
    X = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", X=X)
    np.savez(tmp_path / "b.npz", X=X, y=[1, 0], classes=["cat", "dog"])

    assert open_dataset(tmp_path / "a.npz").labels.tolist() == [-1, -1]
    assert labels_of(open_dataset(tmp_path / "b.npz")) == {"0": "dog", "1": "cat"}


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000, 1000)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 4, 4)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904, 2)}",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776,)}",
        "(" * 9000,
    ],
    ids=["large", "negative", "overflowing", "long", "nested"],
)
def test_npz_whose_header_is_not_that_of_its_bytes_takes_no_memory(tmp_path, header):
    text = header.encode().ljust(9014) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("X.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(48))

    with pytest.raises(DataError, match=r"a.npz is no .npz file, or a damaged one. Save it with np.savez"):
        open_dataset(tmp_path / "a.npz")


def test_npz_that_inflates_without_end_is_refused_before_it_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X=np.zeros((3, 100, 100), np.uint8))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    struct.pack_into("<I", content, content.rindex(b"PK\1\2") + 24, 2**31)  # what the directory says of its size
    (tmp_path / "a.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"a.npz is a decompression bomb: \d+ bytes that become 2,147,483,648"):
        open_dataset(tmp_path / "a.npz")


def test_npz_that_is_damaged_or_hostile_is_refused(tmp_path):
    X = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "objects.npz", X=X, y=np.array([{}, None], dtype=object))
    np.savez(tmp_path / "other.npz", a=X)
    np.savez(tmp_path / "short.npz", X=X, y=[1])
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:-30])
    messages = {
        "objects": r"objects.npz holds Python objects. Save plain arrays: np.savez",
        "other": "other.npz holds a. It needs X and y, or x_train",
        "short": "short.npz: y  ?must be one an image, 2; got 1",
        "text": "text.npz is no .npz file, or a damaged one",
        "cut": "cut.npz is no .npz file, or a damaged one",
    }
    for name, message in messages.items():
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / f"{name}.npz")


# Parquet

CLASSES = ["cat", "dog", "emu"]


def parquet(path: Path, labels: list, *, names=None, start: int = 0, paths=True, rows: int = 3, column="image") -> Path:
    images = [
        {"bytes": png(start + k), "path": f"{label}/{start + k}.png" if paths else None}
        for k, label in enumerate(labels)
    ]
    table = pa.table(
        {column: pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "label": labels}
    )
    if names:
        features = {column: {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def test_parquet_of_hugging_face(tmp_path):
    dataset = open_dataset(parquet(tmp_path / "birds.parquet", [0, 2, 0, 2, None, 0, 2], names=CLASSES))

    assert list(dataset.ids)[:2] == ["0/0.png", "2/1.png"]
    assert dataset.classes == tuple(CLASSES)
    assert dataset.labels.tolist() == [0, 2, 0, 2, -1, 0, 2]
    assert dataset.splits.tolist() == [""] * 7
    assert dataset.name.startswith("birds-")
    assert [data for _, data in dataset.iterate(range(7))] == [png(k) for k in range(7)]
    assert len(np.unique(dataset.stamps(), axis=0)) == 7


def test_any_ascending_rows_may_be_read(tmp_path):
    dataset = open_dataset(parquet(tmp_path / "a.parquet", ["x"] * 300, rows=130))
    wanted = [0, 1, 63, 64, 129, 130, 200, 299]

    assert list(dataset.iterate(np.array(wanted))) == [(k, png(k)) for k in wanted]
    assert dataset.read(150) == png(150)
    assert list(dataset.iterate([])) == []


@pytest.mark.parametrize("pattern", ["{}-00000-of-00001.parquet", "data/{}.parquet", "{}/0000.parquet"])
def test_folder_of_parquet_files_has_splits(tmp_path, pattern):
    for k, split in enumerate(["train", "validation", "test"]):
        parquet(tmp_path / pattern.format(split), ["a", "b"], start=10 * k)
    dataset = open_dataset(tmp_path)
    by_split = {split: dataset.read(int(np.flatnonzero(dataset.splits == split)[0])) for split in set(dataset.splits)}

    assert by_split == {"train": png(0), "val": png(10), "test": png(20)}
    assert len(set(dataset.ids)) == 6
    assert dataset.classes == ("a", "b")


def test_ids_are_row_numbers_where_paths_are_missing_or_doubled(tmp_path):
    dataset = open_dataset(parquet(tmp_path / "a.parquet", ["x", "y"], paths=False))

    assert list(dataset.ids) == ["0", "1"]


def test_column_may_have_another_name_and_be_plain_bytes(tmp_path):
    parquet(tmp_path / "img.parquet", ["x"], column="picture")
    pq.write_table(pa.table({"raw": [png(4)], "fine": ["owl"], "n": [1]}), tmp_path / "plain.parquet")
    plain = open_dataset(tmp_path / "plain.parquet", image_column="raw", label_column="fine")

    assert open_dataset(tmp_path / "img.parquet").read(0) == png(0)
    assert plain.read(0) == png(4)
    assert plain.classes == ("owl",)
    with pytest.raises(DataError, match=r"plain.parquet has no column 'no'. It has: fine, n. Change --label-column"):
        open_dataset(tmp_path / "plain.parquet", label_column="no")


def test_row_without_bytes_is_an_error_entry(tmp_path):
    column = pa.array(
        [{"bytes": None, "path": "x.png"}, None, {"bytes": png(1), "path": "y.png"}],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
    read = dict(open_dataset(tmp_path / "a.parquet").iterate(range(3)))

    assert str(read[0]) == str(read[1]) == "the table holds no bytes for this image"
    assert read[2] == png(1)


def test_damaged_row_group_costs_its_own_rows(tmp_path):
    path = parquet(tmp_path / "a.parquet", ["x"] * 9)
    dataset = open_dataset(path)
    data = bytearray(path.read_bytes())
    place = data.index(png(4)[:60])
    data[place - 40 : place + 20] = bytes(60)
    path.write_bytes(data)
    read = dict(dataset.iterate(range(9)))
    good = [k for k, result in read.items() if result == png(k)]

    assert good == [0, 1, 2, 6, 7, 8] or all(k in good for k in (0, 1, 2, 6, 7, 8))
    assert all(isinstance(read[k], ImageError | bytes) for k in range(9))


def test_parquet_file_that_vanishes_costs_its_own_rows(tmp_path):
    parquet(tmp_path / "train.parquet", ["x"] * 2)
    gone = parquet(tmp_path / "test.parquet", ["x"] * 2)
    dataset = open_dataset(tmp_path)
    gone.unlink()
    read = dict(dataset.iterate(range(4)))

    assert [type(read[k]) for k in range(4)] == [ImageError, ImageError, bytes, bytes]
    assert read[0].transient
    assert "test.parquet cannot be read" in str(read[0])


def test_parquet_without_images_or_damaged_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1], "label": [2]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    parquet(tmp_path / "c.parquet", [7], names=CLASSES)
    for name, message in {
        "a": "a.parquet has no column of images .* It has: a, label",
        "b": "b.parquet is no Parquet file, or a damaged one",
        "c": "c.parquet: label 7 is none of the 3 classes it names, 0 to 2",
    }.items():
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / f"{name}.parquet")


def test_parquet_files_with_other_columns_are_refused(tmp_path):
    parquet(tmp_path / "a.parquet", ["x"])
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "b.parquet")

    with pytest.raises(DataError, match=r"b\.parquet has no column 'label', as the files before it have"):
        open_dataset(tmp_path)


def test_large_row_group_is_streamed_in_bounded_memory(tmp_path):
    """100 MB of images in one row group: a batch and a page of them are held, never all."""
    noise = np.random.default_rng(0)
    images = [{"bytes": noise.bytes(500_000), "path": None} for _ in range(200)]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", row_group_size=1000, write_batch_size=4)
    images.clear()
    dataset = open_dataset(tmp_path / "a.parquet")
    before, peak = pa.total_allocated_bytes(), 0
    for _, data in dataset.iterate(range(200)):
        peak = max(peak, pa.total_allocated_bytes() - before)
        assert len(data) == 500_000

    assert peak < 50e6


def test_parquet_of_millions_of_rows_in_a_few_bytes_is_refused_before_they_are_listed(tmp_path):
    empty = pa.nulls(3 << 20, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": empty}), tmp_path / "a.parquet")

    with pytest.raises(DataError, match=r"a.parquet is damaged, or a decompression bomb: 3,145,728 rows in"):
        open_dataset(tmp_path / "a.parquet")


# Names of public datasets


def idx(path: Path, array: np.ndarray) -> None:
    """Write the format of MNIST's files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(header + array.tobytes())


@pytest.mark.filterwarnings("ignore")
def test_torchvision_dataset_that_is_already_there(tmp_path):
    pytest.importorskip("torchvision")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    for name, part in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        idx(raw / f"{name}-images-idx3-ubyte", pixels[part])
        idx(raw / f"{name}-labels-idx1-ubyte", np.array([4, 2, 4, 9, 2], np.uint8)[part])
    dataset = open_dataset("torchvision:MNIST", images=tmp_path)

    assert list(dataset.ids) == ["train/0", "train/1", "train/2", "test/0", "test/1"]
    assert dataset.splits.tolist() == ["train"] * 3 + ["test"] * 2
    assert len(dataset.classes) == 10
    assert dataset.labels.tolist() == [4, 2, 4, 9, 2]
    assert all(np.array_equal(data, np.stack([pixels[k]] * 3, axis=2)) for k, data in dataset.iterate(range(5)))
    assert dataset.name.startswith("torchvision-mnist-")


@pytest.mark.filterwarnings("ignore")
def test_torchvision_dataset_with_named_splits(tmp_path):
    pytest.importorskip("torchvision")
    for split in ("train", "valid", "test"):
        tree(tmp_path / "country211" / split, "NO/1.png", "SE/1.png")
    dataset = open_dataset("torchvision:Country211", images=tmp_path)

    assert dataset.classes == ("NO", "SE")
    assert dataset.splits.tolist() == ["train", "train", "val", "val", "test", "test"]
    assert dataset.read(1).shape == (8, 8, 3)


@pytest.mark.filterwarnings("ignore")
def test_torchvision_dataset_that_cannot_be_had_is_one_clear_line(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # nobody answers there

    with pytest.raises(DataError, match=r"torchvision:CIFAR10 is not in .* and cannot be downloaded \(.*--images"):
        open_dataset("torchvision:CIFAR10", images=tmp_path)


def test_unknown_torchvision_dataset_suggests_the_nearest():
    pytest.importorskip("torchvision")
    with pytest.raises(UnknownNameError, match=r"Unknown torchvision dataset 'CIFAR1'\. Did you mean 'CIFAR10'"):
        open_dataset("torchvision:CIFAR1")


@pytest.mark.filterwarnings("ignore")
def test_torchvision_dataset_that_needs_more_than_a_name_says_so(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="torchvision:CocoDetection cannot be opened by its name alone"):
        open_dataset("torchvision:CocoDetection", images=tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_hugging_face_dataset(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="the extra hf is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parquet(tmp_path / "birds" / "train.parquet", [0, 2, 2], names=CLASSES)
    parquet(tmp_path / "birds" / "test.parquet", [1], names=CLASSES, start=9)
    dataset = open_dataset(f"hf:{tmp_path}/birds")

    assert dataset.classes == tuple(CLASSES)
    assert dict(zip(dataset.ids, dataset.labels.tolist(), strict=True)) == {
        "train/0": 0, "train/1": 2, "train/2": 2, "test/0": 1,
    }  # fmt: skip
    assert dataset.read(list(dataset.ids).index("test/0")) == png(9)
    assert sorted(set(dataset.splits)) == ["test", "train"]
    with pytest.raises(DataError, match=r"hf:.*nowhere cannot be loaded: "):
        open_dataset(f"hf:{tmp_path}/nowhere")


def test_hugging_face_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(
        MissingExtraError, match=r"hf:owner/name needs the package 'datasets'. .*pip install 'featx\[hf\]'"
    ):
        open_dataset("hf:owner/name")
