"""Questions to a table: what is like this, what is there twice, which labels look wrong, which to label next."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tables import NAMES, digits, table
from scipy.sparse.csgraph import connected_components

import featx
from featx import Features
from featx.cli import main
from featx.curation import out_of_fold
from featx.errors import DataError, OptionError
from featx.features import near_duplicates as near_module
from featx.features import nearest
from featx.features.near_duplicates import near_duplicates


def units(X):
    X = np.asarray(X, np.float64).reshape(len(X), -1)
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-30)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A table in a file of 400 digits with splits train and test."""
    return table(tmp_path_factory.mktemp("numbers"), *digits(400))


# Search


@pytest.mark.parametrize("rows", [slice(None), slice(50, 350), slice(None, None, 3)])
def test_the_most_similar_rows_are_found_in_a_file_whatever_is_selected(numbers, monkeypatch, rows):
    monkeypatch.setattr(nearest, "_BLOCK_BYTES", 7 * 256)
    part = numbers.select(rows)
    for _ in range(2):  # the lengths of the rows are known the second time
        found = part.search(5, k=10)

    cosines = units(part.X) @ units(part.X)[5]
    expected = [row for row in np.argsort(-cosines, kind="stable") if row != 5][:10]
    assert found.rows.tolist() == expected
    np.testing.assert_allclose(found.columns["similarity"], cosines[expected], atol=1e-6)
    assert found.ids == tuple(part.ids[expected])


def test_several_rows_are_sought_and_others_shunned(numbers):
    zeros, sixes = ([str(i) for i in numbers.ids[numbers.y == digit][:3]] for digit in (0, 6))
    found = featx.search(numbers, zeros, unlike=sixes, k=20)
    U = units(numbers.X)
    at = {name: row for row, name in enumerate(numbers.ids)}
    query = U[[at[i] for i in zeros]].mean(0) - U[[at[i] for i in sixes]].mean(0)
    cosines = U @ query / np.linalg.norm(query)
    cosines[[at[i] for i in (*zeros, *sixes)]] = -1

    assert found.rows.tolist() == np.argsort(-cosines, kind="stable")[:20].tolist()
    assert (numbers.y[found.rows] == 0).mean() > 0.9


def test_features_of_ones_own_are_a_query_too(numbers):
    by_vector = numbers.search(numbers[7], k=1)

    assert (by_vector.rows.tolist(), by_vector.columns["similarity"]) == ([7], [pytest.approx(1)])
    assert numbers.search([numbers[7], 7], k=1).rows.tolist() == numbers.search(7, k=1).rows.tolist()
    assert len(numbers.search(0, k=10_000)) == 399


@pytest.mark.parametrize(
    ("like", "options", "error", "words"),
    [
        ("0007.pgn", {}, DataError, "0007.pgn is neither a row of the table nor a file. Did you mean 0007.png?"),
        (np.zeros(64), {}, DataError, "has no direction"),
        (np.ones(63), {}, DataError, "The table's rows have 64 values, got a vector of 63"),
        ([], {}, OptionError, "Nothing is searched for"),
        (0, {"k": 0}, OptionError, "-k"),
    ],
)
def test_a_search_for_nothing_says_what_to_give(numbers, like, options, error, words):
    with pytest.raises(error, match=words):
        numbers.search(like, **options)


def test_a_table_of_arrays_cannot_be_searched_by_a_photo(photos):
    with pytest.raises(DataError, match="does not say how its rows were made"):
        Features.from_arrays(np.eye(3)).search(photos / "red" / "0.jpg")


# Duplicates


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.98, 1.0]))
def test_all_near_pairs_are_found(n, d, seed, near):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(np.float32)
    X[: n // 3] = X[rng.integers(0, n, n // 3)] * 2
    X[n // 2] = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_COORDINATES": 3, "_SAMPLE": 10, "_TILE": 16}.items():
            patch.setattr(near_module, name, value)
        found = near_duplicates(Features.from_arrays(X), near)

    cosines = units(X) @ units(X).T
    np.fill_diagonal(cosines, -1)
    tight, loose = (connected_components(cosines >= near + slack)[1] for slack in (2e-5, -2e-5))
    for i in range(n):  # whatever is linked beyond rounding, and nothing that is not
        together = found.cluster == found.cluster[i] if found.cluster[i] >= 0 else np.arange(n) == i
        assert together[tight == tight[i]].all()
        assert (loose[together] == loose[i]).all()
    linked = found.cluster >= 0
    np.testing.assert_allclose(found.similarity[linked], cosines.max(axis=1)[linked], atol=1e-5)
    assert (found.nearest[~linked] == -1).all()


def test_what_leaks_between_splits_is_named(tmp_path):
    X, y, _ = digits(60)
    X = X - X.mean(axis=0)  # unlike one another
    X[50], X[51], X[52] = X[3] * 1.5, X[4], X[5] + 0.001
    y[50], y[51], y[52] = y[3], (y[4] + 1) % 10, y[5]
    X[21], y[21] = 2 * X[20], y[20]  # the nearest of all, but in train alone
    splits = np.array(["train"] * 50 + ["test"] * 10)
    found = featx.duplicates(table(tmp_path, X, y, splits))

    assert found.facts["clusters"] == 4
    assert set(found.ids[-2:]) == {"0020.png", "0021.png"}
    (leak,) = found.facts["leaks"]
    assert (leak["splits"], sorted(leak["rows"])) == (["train", "test"], ["0050.png", "0051.png", "0052.png"])
    assert found.notes[0].startswith("3 images of test nearly in train, for example 005")
    assert {frozenset(pair) for pair in zip(found.ids[:-2], found.columns["nearest"], strict=False)} == {
        frozenset({"0003.png", "0050.png"}), frozenset({"0004.png", "0051.png"}), frozenset({"0005.png", "0052.png"}),
    }  # fmt: skip
    assert set(found.ids[:2]) == {"0004.png", "0051.png"}  # under two labels: first among equals
    assert "under several labels" in found.notes[1]
    assert featx.duplicates(table(tmp_path / "b", X[:50], y[:50], splits[:50])).notes == ()


def test_identical_images_are_each_others_nearest(tmp_path):
    X, y, splits = digits(40)
    X[[11, 30]] = X[2]
    found = near_duplicates(table(tmp_path, X, y, splits), 1.0)

    assert found.cluster[[2, 11, 30]].tolist() == [0, 0, 0]
    assert found.nearest[[2, 11, 30]].tolist() == [11, 2, 2]
    assert found.similarity[[2, 11, 30]].tolist() == [1, 1, 1]
    assert (np.delete(found.cluster, [2, 11, 30]) == -1).all()


# Doubts


@pytest.mark.parametrize("head", [None, "ridge", "mlp", "knn"])
def test_planted_labels_are_found_among_all_rows(tmp_path, head):
    X, y, splits = digits(500)
    planted = np.random.default_rng(0).choice(500, 12, replace=False)
    wrong = y.copy()
    wrong[planted] = (wrong[planted] + 3) % 10
    features = table(tmp_path, X, wrong, splits)
    model = head and featx.fit(features, head, settings={"epochs": 2} if head == "mlp" else {})
    doubts = featx.doubts(features, model=model)

    assert len(set(doubts.rows[:20].tolist()) & set(planted.tolist())) >= 10
    header, rows = doubts.records()
    assert header[:3] == ["file", "label", "likely"]
    first = int(doubts.rows[0])
    assert rows[0][:3] == [features.ids[first], NAMES[wrong[first]], NAMES[y[first]]]
    assert doubts.columns["neighbours_of_likely"][0] > doubts.columns["neighbours_of_label"][0]
    assert (np.diff(doubts.columns["probability_of_label"]) >= 0).all()
    assert featx.doubts(features, model=model, n=3).ids == doubts.ids[:3]


def test_no_row_is_doubted_by_what_learned_its_twin(tmp_path):
    """Labels of noise: only a twin in another fold could be right about them."""
    X = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    features = table(
        tmp_path, np.tile(X, (2, 1)), np.tile(np.arange(60) % 2, 2), np.full(120, "train"), classes=("a", "b")
    )
    probabilities, positions = out_of_fold(features, featx.fit(features, "knn", settings={"k": 1}))

    assert (probabilities.argmax(axis=1) == features.y[positions]).mean() < 0.75


def test_neighbours_that_testify_are_of_other_groups():
    X, y, _ = digits(300)
    y[:6] = (y[0] + 1) % 10  # six photos of one patient, all labelled wrong alike
    X[:6] = X[0] + 0.001 * np.arange(6)[:, None]
    found = featx.doubts(Features.from_arrays(X, y, groups=["ann"] * 6 + [""] * 294))

    of_ann = {row: i for i, row in enumerate(found.rows.tolist()) if row < 6}
    assert set(of_ann) == set(range(6))
    assert [found.columns["neighbours_of_label"][i] for i in of_ann.values()] == [0] * 6


def test_tables_of_several_labels_are_not_doubted_as_classes():
    rows = Features.from_arrays(digits(20)[0], targets=np.eye(20)[:, :2], target_names=["cat", "dog"])

    for ask in (featx.doubts, featx.suggest):
        with pytest.raises(DataError, match="takes one class an image"):
            ask(rows)


# What to label next


def half_labelled(n=600, labelled=40, **columns):
    X, y, _ = digits(n)
    y[labelled:] = -1
    return Features.from_arrays(X, y, classes=NAMES, **columns)


def test_unsure_rows_that_differ_are_suggested_and_none_that_are_held_out():
    splits = np.where(np.arange(600) % 3 == 0, "test", "train")
    rows = half_labelled(splits=splits)
    found = featx.suggest(rows, n=15)

    assert len(set(found.ids)) == 15
    assert (rows.y[found.rows] == -1).all()
    assert (rows.splits[found.rows] == "train").all()
    assert set(found.columns["likely"]) <= set(NAMES)
    assert (np.diff(found.columns["margin"]) >= 0).all()
    everything = featx.suggest(rows, n=1000)
    assert len(everything) == ((rows.y == -1) & (splits == "train")).sum()
    assert np.mean(found.columns["margin"]) < 0.6 * np.mean(everything.columns["margin"])
    assert featx.suggest(rows, n=15, seed=0).ids == found.ids
    assert featx.suggest(rows, n=15, seed=1).ids != found.ids


def test_what_is_there_often_is_suggested_once():
    X, y, _ = digits(100)
    y[40:] = -1
    copied = np.concatenate([X, np.repeat(X[60:61], 50, axis=0)])
    found = featx.suggest(Features.from_arrays(copied, np.append(y, np.full(50, -1))), n=30)

    assert ((found.rows == 60) | (found.rows >= 100)).sum() <= 1


def test_without_labels_rows_that_stand_for_all_are_suggested():
    found = featx.suggest(half_labelled(400, 0), n=30)

    assert "Fewer than two classes have labels" in found.notes[0]
    assert len(set(digits(400)[1][found.rows].tolist())) == 10


def test_a_model_of_other_classes_may_be_the_one_that_is_unsure(numbers):
    model = featx.fit(numbers, "ridge")
    rows = table(
        numbers.path.parent.parent / "more", digits(600)[0][400:], np.full(200, -1), ["train"] * 200, classes=()
    )
    found = featx.suggest(rows, n=5, model=model)

    probabilities = np.sort(model.predict_proba(rows.select(found.rows)), axis=1)
    np.testing.assert_allclose(found.columns["margin"], probabilities[:, -1] - probabilities[:, -2], atol=1e-6)
    assert set(found.columns["likely"]) <= set(NAMES)


def test_where_nothing_is_left_to_label_that_is_said(numbers):
    with pytest.raises(DataError, match="every row has a label"):
        featx.suggest(numbers)
    with pytest.raises(DataError, match="of val or test"):
        featx.suggest(half_labelled(splits=["train"] * 40 + ["test"] * 560))


# The commands


def test_each_command_prints_rows_and_writes_them(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert main([*map(str, words), "--cache", "cache"]) == 0
        return capsys.readouterr()

    small = ("--image-size", "32", "--workers", "0", "--engine", "eager")
    (path,) = [t["path"] for t in json.loads(run("extract", photos, *small, "--json").out)["tables"]]
    new = photos.parent / "new.jpg"
    new.write_bytes((photos / "blue" / "0.jpg").read_bytes())
    known = json.loads(run("search", path, new, "-k", "3", "--json").out)["rows"]  # its content is known
    assert known[0]["id"] == "blue/0.jpg"
    assert known[0]["similarity"] == pytest.approx(1)
    (photos / "red" / "0.jpg").rename(tmp_path / "moved.jpg")
    new.write_bytes((photos / "blue" / "0.jpg").read_bytes() + b" ")
    made = json.loads(run("search", path, new, "-k", "3", "--json").out)["rows"]  # this one is computed
    assert [row["id"] for row in made] == [row["id"] for row in known]
    assert made[0]["similarity"] == pytest.approx(1, abs=1e-5)
    shown = run("search", path, "red/1.jpg", "red/2.jpg", "--unlike", "blue/0.jpg", "-k", "2").out.splitlines()
    assert shown[0].split() == ["file", "label", "similarity"]
    assert len(shown) == 3

    found = json.loads(run("duplicates", "--near", "0.5", "--json").out)
    assert {"cluster", "nearest", "similarity", "label", "id"} <= set(found["rows"][0])
    assert "12 rows: twins.csv" in run("duplicates", "--near", "0.5", "--csv", "twins.csv").out
    assert (tmp_path / "twins.csv").read_text().splitlines()[0] == "file,label,cluster,nearest,similarity"
    assert "No two rows are nearer than 1." in run("duplicates", "--near", "1").out
    assert json.loads(run("doubts", "--json").out)["rows"] == []
    assert run("doubts").out == "No label looks wrong.\n"

    capsys.readouterr()
    assert main(["suggest", "--cache", "cache"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "Error: No image is left to label: every row has a label."
    assert main(["duplicates", "--near", "2", "--cache", "cache"]) == 1
