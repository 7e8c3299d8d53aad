"""`Features`: rows of a table, or some of them, on demand."""

import csv
import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestCentroid
from toy_rows import KEY, features, items, publish

from featx.errors import CacheError, CorruptFileError, DataError, MissingDataError, OptionError
from featx.features import Features
from featx.recipe import Frame, Recipe, Request
from featx.store import Store

RECIPE = Recipe(
    backbone="toy",
    weights="random-0",
    weights_digest="0" * 64,
    layer="last",
    pool="avg",
    shape=(5,),
    dtype="float32",
    precision="fp32",
    frame=Frame(height=8, width=8, resize="crop", shorter=8, interpolation="bilinear"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
SPLITS = ["train"] * 7 + ["test"] * 3


def table(root, n=10, *, limit=1 << 30, **changes):
    store, ids = Store(root, limit=limit), items(n)
    for start in range(0, n, 4):
        store.commit(KEY, ids[start : start + 4], features(ids[start : start + 4]))
    arguments = {"splits": SPLITS[:n], "recipe": RECIPE.to_json(), "request": Request().to_json()}
    return publish(store, ids, **(arguments | changes))


@pytest.fixture(params=["one file", "segments", "memory"])
def ten_rows(request, tmp_path):
    """The same ten rows of five numbers, wherever a table can lie."""
    X = features(items(10))
    if request.param == "memory":
        y = np.arange(10) % 2
        names = [f"{i}.jpg" for i in range(10)]
        return Features.from_arrays(X, y, ids=names, classes=("cat", "dog"), splits=SPLITS), X
    return Features.open(table(tmp_path, limit=1 << 30 if request.param == "one file" else 10)), X


def test_columns_come_back(ten_rows):
    t, X = ten_rows

    assert np.array_equal(t.X, X)
    assert (t.shape, t.dtype, len(t)) == ((10, 5), np.float32, 10)
    assert t.y.tolist() == [0, 1] * 5
    assert t.ids.tolist() == [f"{i}.jpg" for i in range(10)]
    assert t.classes == ("cat", "dog")
    assert t.splits.tolist() == SPLITS
    assert t.errors == []


def test_rows_come_as_numpy_would_give_them(ten_rows):
    t, X = ten_rows
    mask = np.arange(10) % 3 == 0

    assert np.array_equal(t[3], X[3])
    assert np.array_equal(t[-1], X[-1])
    assert np.array_equal(t[np.int64(2)], X[2])
    for which in (slice(2, 9, 3), slice(None, None, -1), [4, 4, -2], np.array([9, 0]), mask, mask.tolist(), []):
        assert np.array_equal(t[which], X[which] if len(np.shape(which)) == 0 or len(which) else X[:0])


def test_impossible_rows_are_refused(ten_rows):
    t, _ = ten_rows

    with pytest.raises(DataError, match="Rows are 0 to 9, got 10 to 10"):
        t[10]
    with pytest.raises(DataError, match="A mask needs 10 values, got 3"):
        t[np.array([True, False, True])]
    with pytest.raises(DataError, match="integers or a mask"):
        t[np.array([0.5])]


def test_selections_nest(ten_rows):
    t, X = ten_rows
    part = t.select("train").select(slice(1, None)).select(np.array([0, 5, 0]))

    assert np.array_equal(part.X, X[[1, 6, 1]])
    assert part.ids.tolist() == ["1.jpg", "6.jpg", "1.jpg"]
    assert part.y.tolist() == [1, 0, 1]
    assert len(part) == 3


def test_split_gives_rows_and_labels_of_one_split(ten_rows):
    t, X = ten_rows
    rows, labels = t.split("test")

    assert np.array_equal(rows, X[7:])
    assert labels.tolist() == [1, 0, 1]


def test_an_unknown_split_is_answered_with_those_there_are(ten_rows):
    t, _ = ten_rows

    with pytest.raises(DataError, match=r"No rows of split 'val'. Splits: train \(7\), test \(3\)"):
        t.split("val")


@given(n=st.integers(0, 60), d=st.integers(1, 9), n_bytes=st.integers(1, 700), seed=st.integers(0, 9))
def test_shuffled_blocks_hold_every_row_once(n, d, n_bytes, seed):
    X = np.arange(n * d, dtype=np.float32).reshape(n, d)
    t = Features.from_arrays(X)
    blocks = list(t.blocks(n_bytes, shuffle=True, seed=seed))

    assert sorted(np.concatenate([indices for indices, _ in blocks], dtype=int).tolist() if blocks else []) == [
        *range(n)
    ]
    assert all(np.array_equal(rows, X[indices]) for indices, rows in blocks)
    assert all(rows.nbytes <= max(n_bytes, X[:1].nbytes) for _, rows in blocks)


def test_blocks_in_order_concatenate_to_the_table(ten_rows):
    t, X = ten_rows
    indices, rows = zip(*t.blocks(3 * 20), strict=True)

    assert np.concatenate(indices).tolist() == [*range(10)]
    assert [len(block) for block in rows] == [3, 3, 3, 1]
    assert np.array_equal(np.concatenate(rows), X)


def test_shuffled_blocks_follow_the_seed(ten_rows):
    t, _ = ten_rows

    def order(seed):
        return np.concatenate([indices for indices, _ in t.blocks(60, shuffle=True, seed=seed)]).tolist()

    assert order(1) == order(1)
    assert order((1, 0)) != order((1, 1))


def test_a_block_of_a_sorted_table_mixes_classes():
    y = np.repeat(np.arange(10), 1000)
    t = Features.from_arrays(y[:, None].astype(np.float32), y)

    for indices, _ in t.blocks(4 * 2000, shuffle=True):
        assert len(np.unique(y[indices])) >= 5


def test_what_is_returned_belongs_to_the_caller(ten_rows):
    t, X = ten_rows
    rows = t.X
    rows[:] = 0
    t[2:5][:] = 0

    assert np.array_equal(t.select([1]).X, X[[1]])
    assert rows.flags.writeable
    assert t.y.flags.writeable


def test_maps_keep_their_shape(tmp_path):
    store, ids = Store(tmp_path), items(3)
    maps = features(ids, d=24).reshape(3, 2, 3, 4)
    store.commit(KEY, ids, maps)
    t = Features.open(publish(store, ids))

    assert t.shape == (3, 2, 3, 4)
    assert np.array_equal(t[1], maps[1])
    assert np.array_equal(t.X, maps)


def test_half_precision_is_kept(tmp_path):
    store, ids = Store(tmp_path), items(3)
    store.commit(KEY, ids, features(ids, dtype=np.float16))
    t = Features.open(publish(store, ids))

    assert t.dtype == np.float16
    assert np.array_equal(t.X, features(ids, dtype=np.float16))


def test_a_table_knows_where_it_comes_from(tmp_path):
    path = table(tmp_path, provenance={"host": "here"}, probe={"pixels": np.arange(2)}, errors=[("x", "empty")])
    t = Features.open(path)

    assert t.recipe == RECIPE
    assert t.request == Request()
    assert (t.key, t.path, t.dataset) == (KEY, path, "photos-12345678")
    assert t.provenance == {"host": "here"}
    assert t.probe["pixels"].tolist() == [0, 1]
    assert t.errors == [("x", "empty")]
    assert repr(t) == f"Features(10 × 5 float32, 2 classes, train 7 · test 3, 1 errors, {path})"


def test_names_in_any_script_come_back(tmp_path):
    store, ids = Store(tmp_path), items(2)
    store.commit(KEY, ids, features(ids))
    broken = b"\xff.jpg".decode("utf-8", "surrogateescape")  # a file name that is no UTF-8
    t = Features.open(publish(store, ids, ids=["猫/ü 1.jpg", broken], classes=("猫", "<script>"), splits=["", "tëst"]))

    assert t.ids.tolist() == ["猫/ü 1.jpg", broken]
    assert t.classes == ("猫", "<script>")
    assert t.splits.tolist() == ["", "tëst"]


def test_a_table_without_rows_is_a_table(tmp_path):
    store = Store(tmp_path)
    store.commit(KEY, items(0), np.empty((0, 5), np.float32), errors=[(b"\1" * 32, "empty")])
    t = Features.open(publish(store, items(0), errors=[("a", "empty")]))

    assert t.shape == (0, 5)
    assert t.X.shape == (0, 5)
    assert list(t.blocks()) == []


def test_ten_thousand_classes_and_unlabelled_rows(tmp_path):
    store, ids = Store(tmp_path), items(10_000)
    store.commit(KEY, ids, features(ids))
    names = [f"class {i}" for i in range(10_000)]
    y = np.arange(10_000) - 1
    t = Features.open(publish(store, ids, y=y, classes=names))

    assert t.y.tolist() == y.tolist()
    assert t.classes[-1] == "class 9999"


def test_arrays_that_do_not_fit_are_refused():
    X = np.zeros((3, 2), np.float32)

    with pytest.raises(DataError, match="X has 3 rows, y has 2"):
        Features.from_arrays(X, [0, 1])
    with pytest.raises(DataError, match=r"Labels must be -1 or numbers of the 2 classes, got 0 to 2"):
        Features.from_arrays(X, [0, 1, 2], classes=("a", "b"))
    with pytest.raises(DataError, match="shape"):
        Features.from_arrays(X[0])


def test_nothing_there_is_said_plainly(tmp_path):
    with pytest.raises(MissingDataError, match=r"no table at .*nowhere.h5.*featx cache list"):
        Features.open(tmp_path / "nowhere.h5")
    (tmp_path / "thesis.h5").write_text("precious")
    with pytest.raises(CorruptFileError, match="does not begin as a file of featx"):
        Features.open(tmp_path / "thesis.h5")
    with pytest.raises(DataError, match=r"is a folder, not a table.*featx\.extract\('"):
        Features.open(tmp_path)


# Pickling, forks, threads, replaced files


def test_a_pickle_names_the_file_and_keeps_the_selection(ten_rows):
    t, X = ten_rows
    part = pickle.loads(pickle.dumps(t.select("test")))

    assert np.array_equal(part.X, X[7:])


def test_a_pickle_is_small(tmp_path):
    t = Features.open(table(tmp_path))
    assert t.X.shape
    assert t.ids.shape

    assert len(pickle.dumps(Features(t._table))) < 1_000


def test_a_pickle_of_a_replaced_table_is_refused(tmp_path):
    path = table(tmp_path)
    frozen = pickle.dumps(Features.open(path))
    table(tmp_path, y=np.zeros(10, int))

    with pytest.raises(CacheError, match="was written anew"):
        pickle.loads(frozen)


def test_a_reader_keeps_the_file_that_it_opened(tmp_path):
    path = table(tmp_path)
    t = Features.open(path)
    store = Store(tmp_path)
    publish(store, items(10)[::-1], splits=SPLITS)

    assert np.array_equal(t.X, features(items(10)))
    assert np.array_equal(Features.open(path).X, features(items(10)[::-1]))


def rows_are_right(t, seed):
    X = features(items(10))
    random = np.random.default_rng(seed)
    for _ in range(50):
        rows = random.integers(0, 10, 6)
        assert np.array_equal(t[rows], X[rows])


def in_child(t, seed):
    rows_are_right(t, seed)
    os._exit(7)


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["one file", "segments"])
def test_forked_children_share_a_reader(tmp_path, limit):
    t = Features.open(table(tmp_path, limit=limit))
    assert t[0].shape == (5,)
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=in_child, args=(t, seed)) for seed in range(4)]
    for child in children:
        child.start()
    rows_are_right(t, 99)
    for child in children:
        child.join()

    assert [child.exitcode for child in children] == [7] * 4


@pytest.mark.parametrize("limit", [1 << 30, 10], ids=["one file", "segments"])
def test_threads_share_a_reader(tmp_path, limit):
    t = Features.open(table(tmp_path, limit=limit))
    failures = []

    def work(seed):
        try:
            rows_are_right(t, seed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread tells it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_workers_of_a_data_loader_read_one_table(tmp_path):
    torch_data = pytest.importorskip("torch.utils.data")
    t = Features.open(table(tmp_path))
    assert t[0].shape == (5,)
    loader = torch_data.DataLoader(t, batch_size=4, num_workers=2, multiprocessing_context="fork")

    assert np.array_equal(np.concatenate([batch.numpy() for batch in loader]), features(items(10)))


# Export


def test_npz(ten_rows, tmp_path):
    t, X = ten_rows
    with np.load(t.export(tmp_path / "t.npz"), allow_pickle=False) as archive:
        assert np.array_equal(archive["X"], X)
        assert archive["y"].tolist() == t.y.tolist()
        assert archive["ids"].tolist() == t.ids.tolist()
        assert archive["classes"].tolist() == ["cat", "dog"]
        assert archive["splits"].tolist() == SPLITS


def test_parquet(ten_rows, tmp_path):
    from pyarrow import parquet

    t, X = ten_rows
    rows = parquet.read_table(t.select("test").export(tmp_path / "t.parquet")).to_pylist()

    assert [row["id"] for row in rows] == ["7.jpg", "8.jpg", "9.jpg"]
    assert [row["label"] for row in rows] == ["dog", "cat", "dog"]
    assert np.array_equal(np.float32([row["features"] for row in rows]), X[7:])


def test_csv(ten_rows, tmp_path):
    t, X = ten_rows
    with t.export(tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [row["id"] for row in rows] == t.ids.tolist()
    assert np.array_equal(np.float32([[row[f"f{i}"] for i in range(5)] for row in rows]), X)


def test_parquet_with_a_column_for_each_feature(ten_rows, tmp_path):
    from pyarrow import parquet

    t, X = ten_rows
    part = t.select([3, 9, 0])
    found = parquet.read_table(part.export(tmp_path / "t.parquet", columns=True))
    rows = found.to_pylist()

    assert found.column_names == ["id", "label", "y", "split", "f0", "f1", "f2", "f3", "f4"]
    assert [row["id"] for row in rows] == ["3.jpg", "9.jpg", "0.jpg"]
    assert np.array_equal(np.float32([[row[f"f{i}"] for i in range(5)] for row in rows]), X[[3, 9, 0]])
    with pytest.raises(OptionError, match=r"Columns are for \.parquet, got 't\.npz'"):
        t.export(tmp_path / "t.npz", columns=True)


def test_pandas(ten_rows):
    t, X = ten_rows
    frame = t.select("test").to_pandas()

    assert list(frame.columns) == ["id", "label", "y", "split", "f0", "f1", "f2", "f3", "f4"]
    assert frame["id"].tolist() == ["7.jpg", "8.jpg", "9.jpg"]
    assert frame["label"].tolist() == ["dog", "cat", "dog"]
    assert frame["split"].tolist() == ["test"] * 3
    assert np.array_equal(frame[[f"f{i}" for i in range(5)]].to_numpy(), X[7:])
    assert frame["f0"].dtype == np.float32


def test_names_that_are_no_unicode_and_rows_without_labels_can_be_exported(tmp_path):
    t = Features.from_arrays(np.eye(2), ids=["a\udcff.jpg", "ä.jpg"])

    assert t.to_pandas()["id"].tolist() == [r"a\udcff.jpg", "ä.jpg"]
    assert t.to_pandas()["label"].isna().all()
    for ending in ("parquet", "csv"):
        assert rb"a\udcff.jpg" in t.export(tmp_path / f"t.{ending}").read_bytes()


def test_one_hdf5_that_opens_again(ten_rows, tmp_path):
    t, X = ten_rows
    copy = Features.open(t.select("train").export(tmp_path / "t.h5"))

    assert np.array_equal(copy.X, X[:7])
    assert copy.recipe == t.recipe
    assert copy.ids.tolist() == t.ids.tolist()[:7]


def test_unlabelled_half_precision_rows_can_be_exported_everywhere(tmp_path):
    t = Features.from_arrays(np.float16([[0.1, 2], [3, 4]]))
    for ending in ("npz", "parquet", "csv", "h5"):
        assert t.export(tmp_path / f"t.{ending}").stat().st_size > 0


def test_an_export_has_one_of_four_endings(tmp_path):
    with pytest.raises(OptionError, match=r"must end with .npz, .parquet, .csv, .h5"):
        Features.from_arrays(np.eye(2)).export(tmp_path / "t.xls")
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_a_sequence_and_an_array_of_its_rows(tmp_path):
    t = Features.open(table(tmp_path))

    np.testing.assert_array_equal(list(t), t.X)
    np.testing.assert_array_equal(np.asarray(t), t.X)
    assert np.asarray(t, dtype=np.float64).dtype == np.float64


def test_scikit_learn_cross_validates_on_a_table(tmp_path):
    t = Features.open(table(tmp_path))

    by_table, by_array = (cross_val_score(NearestCentroid(), X, [0, 1] * 5, cv=2) for X in (t, t.X))

    np.testing.assert_array_equal(by_table, by_array)


def test_what_is_no_table_says_how_to_make_one():
    with pytest.raises(DataError, match=r"got ndarray\. Of arrays: Features\.from_arrays"):
        Features.open(np.zeros((3, 2)))


def test_names_are_no_labels_and_the_error_makes_labels_of_them():
    with pytest.raises(DataError, match=r"got <U3. Of names: classes, y = np.unique\(names, return_inverse=True\)"):
        Features.from_arrays(np.zeros((2, 3), np.float32), ["cat", "dog"])
