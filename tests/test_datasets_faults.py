"""What people's data look like: labels that mean something else, names that do not fit, inputs of other libraries."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_images import png, tree

from featx.datasets import Dataset, open_dataset
from featx.errors import DataError, ImageError
from featx.images import decode


def table(root: Path, text: str, *names: str) -> Dataset:
    """Open a labels.csv of images that are there."""
    tree(root, *names)
    (root / "labels.csv").write_text(text)
    return open_dataset(root / "labels.csv")


def labels_of(dataset: Dataset) -> list[str | None]:
    names = [*dataset.classes, None]
    return [names[label] for label in dataset.labels]


# Folders


def test_a_class_without_training_images_is_named_and_unlabelled(tmp_path):
    dataset = open_dataset(tree(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/wolf/4.png"))

    assert dataset.classes == ("cat", "dog")
    assert dict(zip(dataset.ids, labels_of(dataset), strict=True))["test/wolf/4.png"] is None
    assert any(
        "Not among the training images: 'wolf' (1 images), which are taken as unlabelled" in note
        for note in dataset.notes
    )


def test_classes_stay_where_nothing_is_for_training(tmp_path):
    assert open_dataset(tree(tmp_path, "test/cat/3.png", "test/wolf/4.png")).classes == ("cat", "wolf")


@pytest.mark.parametrize("folder", ["test", "unknown", "Unlabelled", "pred"])
def test_the_only_folder_of_a_split_may_mean_no_label(tmp_path, folder):
    dataset = open_dataset(tree(tmp_path, "train/cat/1.png", "train/dog/2.png", f"test/{folder}/3.png"))

    assert dataset.classes == ("cat", "dog")
    assert labels_of(dataset)[dataset.splits.tolist().index("test")] is None
    assert any("label" in note for note in dataset.notes)


def test_classes_that_differ_in_case_are_named(tmp_path):
    dataset = open_dataset(tree(tmp_path, "train/Dog/1.png", "train/cat/1.png", "test/dog/1.png", "train/dog/2.png"))

    assert any("differ in case or spaces only: 'Dog' and 'dog'" in note for note in dataset.notes)


def test_split_folders_with_a_common_word_and_one_of_their_own_name(tmp_path):
    names = ["seg_train/seg_train/sea/1.png", "seg_train/seg_train/forest/2.png", "seg_test/seg_test/sea/3.png"]
    dataset = open_dataset(tree(tmp_path, *names, "seg_pred/seg_pred/4.png"))
    rows = dict(zip(dataset.ids, zip(dataset.splits, labels_of(dataset), strict=True), strict=True))

    assert rows == {
        "seg_pred/seg_pred/4.png": ("", None),
        "seg_test/seg_test/sea/3.png": ("test", "sea"),
        "seg_train/seg_train/forest/2.png": ("train", "forest"),
        "seg_train/seg_train/sea/1.png": ("train", "sea"),
    }
    assert any("'seg_pred' (no labels), 'seg_test' (test), 'seg_train' (train)" in note for note in dataset.notes)


def test_split_folders_beside_others_are_classes_and_this_is_said(tmp_path):
    dataset = open_dataset(tree(tmp_path, "train/a/1.png", "test/a/2.png", "extra/3.png"))

    assert dataset.classes == ("extra", "test", "train")
    assert any("move the others away" in note for note in dataset.notes)


def test_classes_whose_names_hold_a_split_word_are_classes(tmp_path):
    dataset = open_dataset(tree(tmp_path, "freight-train/1.png", "passenger-train/2.png", "bus test/3.png"))

    assert len(dataset.classes) == 3


def test_a_link_in_a_circle_costs_one_row(tmp_path):
    tree(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "x.png").symlink_to("x.png")
    (tmp_path / "a" / "again").symlink_to("again")
    dataset = open_dataset(tmp_path)
    read = dict(dataset.iterate(range(3)))

    assert list(dataset.ids) == ["a/1.png", "a/x.png", "b/2.png"]
    assert "symbolic links" in str(read[1])
    assert read[0] == png(0)


def test_a_folder_that_cannot_be_listed_costs_one_row(tmp_path):
    """Root may list every folder, but nobody one whose path is too long."""
    tree(tmp_path, "a/1.png", "b/2.png")
    here = os.open(tmp_path / "b", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=here)
        deeper = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    dataset = open_dataset(tmp_path)

    assert len(dataset) == 3
    with pytest.raises(ImageError, match="folder cannot be listed"):
        dataset.read(2)
    assert labels_of(dataset) == ["a", "b", "b"]


# Labels in tables


def test_measurements_are_no_classes(tmp_path):
    text = "id,label\na,0.5\nb,1\n"
    assert table(tmp_path, text, "a.png", "b.png").task == "regress"
    with pytest.raises(DataError, match=r"column 'label' holds measurements such as 0\.5.*--task regress"):
        open_dataset(tmp_path / "labels.csv", task="classify")


def test_whole_numbers_are_one_class_however_written(tmp_path):
    dataset = table(tmp_path, "id,label\na,1.0\nb,1\nc,2.0\nd,007\n", *(f"{c}.png" for c in "abcd"))

    assert labels_of(dataset) == ["1", "1", "2", "007"]
    assert any("The 3 different numbers in column 'label' are taken as 3 classes." in note for note in dataset.notes)


def test_words_for_missing_values_are_no_classes(tmp_path):
    dataset = table(tmp_path, "id,label\na,cat\nb,NaN\nc,None\nd,dog\n", *(f"{c}.png" for c in "abcd"))

    assert labels_of(dataset) == ["cat", None, None, "dog"]
    assert any("2 cells of 'label' say 'NaN'" in note for note in dataset.notes)


def test_several_labels_in_a_cell_are_named(tmp_path):
    text = "id,label\na,cat;dog\nb,cat\nc,dog\nd,dog;cat\n"
    dataset = table(tmp_path, text, *(f"{c}.png" for c in "abcd"))
    breeds = table(tmp_path / "x", 'id,label\na,"Retriever, Golden"\nb,"Retriever, Flat"\n', "a.png", "b.png")

    assert any("2 cells of 'label' seem to hold several labels, as 'cat;dog'" in note for note in dataset.notes)
    assert not any("several" in note for note in breeds.notes)


def test_one_hot_columns_are_the_class(tmp_path):
    dataset = table(tmp_path, "id,cat,dog,age\na,1,0,7\nb,0,1,8\n", "a.png", "b.png")

    assert labels_of(dataset) == ["cat", "dog"]
    assert any("columns of 0 and 1 cat, dog" in note for note in dataset.notes)


# Names in tables


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("a.jpeg", "a.JPG"), ("A.png", "a.png"), ("C:\\data\\a.png", "a.png"), ("/home/eva/photos/a.png", "x/a.png"),
        ("..\\photos\\a.png", "a.png"),
    ],
)  # fmt: skip
def test_images_are_found_under_another_root_or_extension(tmp_path, cell, name):
    dataset = table(tmp_path, f"id,label\n{cell},1\n", name)

    assert dataset.read(0) == png(0)
    assert any("1 images were found under another folder or extension" in note for note in dataset.notes)


def test_a_file_that_another_row_names_is_not_taken_for_a_missing_one(tmp_path):
    dataset = table(tmp_path, "id,label\na.png,1\na.jpg,2\n", "a.png")

    with pytest.raises(ImageError):
        dataset.read(1)


def test_two_paths_of_one_basename_are_not_both_taken_for_the_file(tmp_path):
    dataset = table(tmp_path, "id,label\nx/a.png,1\ny/a.png,2\nb.png,1\n", "a.png", "b.png")

    assert sum(isinstance(data, ImageError) for _, data in dataset.iterate(range(3))) == 2


def test_the_nearest_name_is_told(tmp_path):
    dataset = table(tmp_path, "id,label\n7,1\n0008,2\n", "0007.png", "0008.png")

    assert any("The nearest to '7' is '0007.png'" in note for note in dataset.notes)


def test_a_row_without_a_name_says_so(tmp_path):
    dataset = table(tmp_path, "id,label\na,1\n,2\n,1\n", "a.png")

    assert [str(data) for _, data in dataset.iterate([1, 2])] == [
        "row 3 of labels.csv has no image name",
        "row 4 of labels.csv has no image name",
    ]
    assert list(dataset.ids) == ["a", "row 3", "row 4"]


def test_pixels_around_zero_are_told_how_to_be_scaled():
    with pytest.raises(DataError, match=r"Scale it: \(X \+ 1\) / 2"):
        open_dataset(np.linspace(-1, 1, 192, dtype=np.float32).reshape(1, 8, 8, 3))


# Inputs of other libraries


def test_none_among_labels_is_a_row_without_one():
    pixels = np.zeros((3, 4, 4), np.uint8)

    assert labels_of(open_dataset(pixels, labels=["a", None, "b"])) == ["a", None, "b"]
    assert labels_of(open_dataset(pixels, labels=np.array(["a", None, "b"], dtype=object))) == ["a", None, "b"]


def test_a_data_frame_is_read_by_its_columns(tmp_path):
    pandas = pytest.importorskip("pandas")
    tree(tmp_path, "a.png", "b.png", "c.png")
    paths = [str(tmp_path / f"{c}.png") for c in "abc"]
    frame = pandas.DataFrame({"path": paths, "label": [1.0, None, 0.0], "split": ["train", "test", "train"]})
    dataset = open_dataset(frame)
    alone = open_dataset(frame[["path"]].rename(columns={"path": "whatever"}))

    assert labels_of(dataset) == ["1", None, "0"]
    assert dataset.splits.tolist() == ["train", "test", "train"]
    assert [data for _, data in dataset.iterate(range(3))] == [png(0), png(1), png(2)]
    assert alone.read(1) == png(1)
    assert labels_of(open_dataset(frame.rename(columns={"label": "age"}), label_column="age")) == ["1", None, "0"]


def test_torchvision_folders_and_subsets(tmp_path):
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    tree(tmp_path, "cat/1.png", "dog/2.png", "dog/3.png")
    folder = ImageFolder(tmp_path)
    whole, part = open_dataset(folder), open_dataset(Subset(folder, [2, 0]))

    assert list(whole.ids) == ["cat/1.png", "dog/2.png", "dog/3.png"]
    assert labels_of(whole) == ["cat", "dog", "dog"]
    assert whole.stamps() is not None
    assert list(part.ids) == ["dog/3.png", "cat/1.png"]
    assert labels_of(part) == ["dog", "cat"]
    assert [data for _, data in part.iterate([0, 1])] == [png(2), png(0)]


@pytest.mark.parametrize("form", ["uint8", "float", "pillow"])
def test_datasets_of_torch_give_image_and_label(form):
    import torch
    from torch.utils.data import Dataset as TorchDataset

    pixels = torch.arange(2 * 3 * 5 * 4, dtype=torch.uint8).reshape(2, 3, 5, 4)

    class Mine(TorchDataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if form == "pillow":
                return Image.fromarray(pixels[i].permute(1, 2, 0).numpy()), "ab"[i]
            return pixels[i] if form == "uint8" else pixels[i] / 255, torch.tensor(i)

    dataset = open_dataset(Mine())

    assert labels_of(dataset) == (["a", "b"] if form == "pillow" else ["0", "1"])
    np.testing.assert_array_equal(dataset.read(1), pixels[1].permute(1, 2, 0).numpy())
    assert any("own transform" in note for note in dataset.notes)


def test_tensors_have_their_channels_first():
    import torch

    pixels = torch.arange(2 * 3 * 5 * 4, dtype=torch.uint8).reshape(2, 3, 5, 4)
    expected = pixels.permute(0, 2, 3, 1).numpy()

    for given in (pixels, pixels / 255, list(pixels)):
        np.testing.assert_array_equal(open_dataset(given).read(1), expected[1])
    assert open_dataset(torch.zeros(4, 6, 7)).read(0).shape == (6, 7)


def test_datasets_of_hugging_face_in_memory():
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (4, 4), (k, 0, 0)) for k in range(4)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    part = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features=features)
    dataset = open_dataset(datasets.DatasetDict({"train": part, "test": part}))
    alone = open_dataset(part)

    assert dataset.classes == ("cat", "dog")
    assert dataset.splits.tolist() == ["train"] * 4 + ["test"] * 4
    assert labels_of(alone) == ["cat", "dog", "cat", "dog"]
    assert decode(alone.read(3)).getpixel((0, 0)) == (3, 0, 0)


# Formats


def test_avif_is_read():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (200, 30, 30)).save(buffer, "AVIF")

    assert decode(buffer.getvalue()).size == (16, 12)


def test_a_bitmap_without_its_first_header_is_read():
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3), (10, 200, 30)).save(buffer, "DIB")

    assert decode(buffer.getvalue()).getpixel((4, 2)) == (10, 200, 30)
