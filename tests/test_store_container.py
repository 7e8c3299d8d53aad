"""A sealed file says the same to h5py and to featx; and millions of digests are found again."""

import signal

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import CorruptFileError, DataError
from featx.store import Disk, clean_name
from featx.store.catalog import DigestIndex
from featx.store.container import RowStream, Sealed, write_sealed
from featx.store.hdf5 import Inspector, from_utf8, to_utf8
from featx.store.rows import RowBlocks, block_rows

DTYPES = st.sampled_from(["<f2", "<f4", "<f8", "<i8", "|u1", "|S3"])
SHAPES = st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple)


@pytest.fixture(scope="module")
def inspector():
    with Inspector() as inspector:
        yield inspector


def write(path, arrays=None, X=None, **attributes):
    rows = None if X is None else RowStream(X.dtype, X.shape, lambda start, stop: X[start:stop])
    write_sealed(Disk(), path, kind="test", attributes=attributes, arrays=arrays or {}, rows=rows)
    return Sealed.open(Disk(), path)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([f"{group}{i}" for group in ("", "probe/", "views/") for i in range(20)]),
        st.tuples(DTYPES, SHAPES),
    ),
    st.none() | st.tuples(st.sampled_from(["<f2", "<f4"]), SHAPES.filter(lambda shape: len(shape) > 1)),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9000),
)
def test_h5py_and_featx_read_the_same(tmp_path_factory, inspector, specs, rows, text):
    random = np.random.default_rng(0)

    def filled(dtype, shape):
        n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(random.integers(1, 100, n_bytes, dtype=np.uint8).tobytes(), dtype).reshape(shape)

    arrays = {name: filled(*spec) for name, spec in specs.items()}
    X = filled(*rows) if rows else None
    path = tmp_path_factory.mktemp("files") / "x.h5"
    file = write(path, arrays, X, text=text)

    with h5py.File(path) as hdf5:
        assert hdf5.attrs["text"] == text
        for name, array in arrays.items():
            assert np.array_equal(hdf5[name][:], array)
            assert np.array_equal(file.array(name), array)
        if X is not None:
            assert np.array_equal(hdf5["X"][:], X)
            assert np.array_equal(file.row_blocks().read(0, len(X)), X)
    file.check_structure(inspector)
    file.verify()


def test_a_file_that_h5py_would_read_for_ever_is_refused_and_the_next_one_is_checked(tmp_path, inspector):
    """One byte more in the last text of a heap of HDF5: behind it, libhdf5 looks at the same empty place for ever."""
    good, bad = (write(tmp_path / name, {"y": np.arange(3)}, text="sixteen letters.") for name in ("good", "bad"))
    content = bad.path.read_bytes()
    longer = content.replace(
        bytes([16, 0, 0, 0, 0, 0, 0, 0]) + b"sixteen", bytes([17, 0, 0, 0, 0, 0, 0, 0]) + b"sixteen"
    )
    assert longer != content
    bad.path.write_bytes(longer)

    good.check_structure(inspector)
    first = inspector._process
    with pytest.raises(CorruptFileError, match="reads it for ever"):
        bad.check_structure(inspector)
    assert first.returncode == -signal.SIGPROF  # waited for: it is no zombie
    good.check_structure(inspector)


def test_equal_content_makes_an_equal_file(tmp_path):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    for name in ("a", "b"):
        write(tmp_path / name, {"y": np.arange(4)}, X, key="k")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("dtype", [object, "<c8", "<M8[s]", bool])
def test_types_that_could_not_be_read_are_not_written(tmp_path, dtype):
    with pytest.raises(TypeError, match="does not write"):
        write(tmp_path / "x", {"y": np.zeros(3, dtype)})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.sampled_from([1, 5, 3000, 40_000]), st.booleans())
def test_any_rows_in_any_order(tmp_path_factory, data, n, d, mapped):
    X = np.arange(n * d, dtype=np.float32).reshape(n, d)
    reader = write(tmp_path_factory.mktemp("files") / "x.h5", {}, X).row_blocks()
    for _ in range(3):
        rows = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=60)), np.int64)
        assert np.array_equal(reader.take(rows, mapped=mapped), X[rows])
        start = data.draw(st.integers(0, n))
        stop = data.draw(st.integers(start, n))
        assert np.array_equal(reader.read(start, stop), X[start:stop])


def test_a_read_into_memory_of_the_caller_fills_it(tmp_path):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    reader, out = write(tmp_path / "x", {}, X).row_blocks(), np.empty((2, 3), np.float32)

    assert reader.take(np.array([3, 0]), out) is out
    assert np.array_equal(out, X[[3, 0]])


def test_rows_out_of_range_are_never_bytes_of_something_else(tmp_path):
    X = np.arange(12, dtype=np.float32).reshape(4, 3)
    reader = write(tmp_path / "x", {}, X).row_blocks()

    for rows in ([4], [-1], [0, 9]):
        with pytest.raises(IndexError):
            reader.take(np.array(rows))


def test_each_block_is_verified_once(tmp_path):
    """The second read of a row costs no digest: what is damaged after the first is not looked at again."""
    X = np.ones((100, 1000), np.float32)
    file = write(tmp_path / "x", {}, X)
    reader = file.row_blocks()
    reader.read(0, 100)
    calls = []
    reader._compare = lambda *arguments: calls.append(arguments)
    reader.read(0, 100)
    reader.take(np.array([5, 99, 3]))

    assert calls == []
    assert isinstance(reader, RowBlocks)
    assert block_rows(X.shape, X.dtype) == 16


@given(st.lists(st.binary(min_size=2, max_size=2)), st.lists(st.binary(min_size=2, max_size=2)))
def test_digests_are_found_where_they_are(known, others):
    """What is sorted is made to collide: of both ends only one byte differs, of the middle another one."""

    def table(digests):
        stacked = np.zeros((len(digests), 24), np.uint8)
        stacked[:, [0, 12]] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 2)
        return stacked

    known, queries = table(known), table([*others, *known])
    expected = [next((i for i, row in enumerate(known.tolist()) if row == query), -1) for query in queries.tolist()]

    assert DigestIndex(known).positions(queries).tolist() == expected


@given(st.text(max_size=400))
def test_clean_names_are_safe_names(text):
    name = clean_name(text)

    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name[0] not in ".-"
    assert len(name) <= 150


def test_long_names_that_begin_alike_stay_different():
    assert clean_name("x" * 300 + "a") != clean_name("x" * 300 + "b")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.endswith("\0"))))
def test_text_comes_back(texts):
    assert from_utf8(to_utf8(texts)).tolist() == texts


def test_text_that_hdf5_could_not_hold_is_refused():
    with pytest.raises(DataError, match="ends with a NUL"):
        to_utf8(["a\0"])
    with pytest.raises(DataError, match="cannot be written as UTF-8"):
        to_utf8(["\ud800"])
