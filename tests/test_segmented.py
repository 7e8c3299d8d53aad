"""A table too large for one file stays in segments, and nothing that works on tables can tell."""

import json
import pickle
import re

import h5py
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from model_tables import NAMES, digits, recipe_for
from test_views import run

import featx
from featx.cli import main
from featx.errors import OptionError
from featx.evaluation import evaluate
from featx.features import Features
from featx.heads.names import REGISTRY
from featx.protocols import PROTOCOLS
from featx.recipe import Request
from featx.store import Store, Table, TableContent

N = 1260
#: More segments than a reader holds open.
PIECES = 20
#: Settings under which a head is quick.
QUICK = {
    "mlp": {"hidden": 16, "epochs": 2},
    "conv": {"layers": "conv2 relu max flat", "epochs": 1},
    "attentive": {"epochs": 1},
}
QUICK |= {
    "xgboost": {"n_estimators": 3},
    "logreg-cv": {"Cs": 3},
    "svm": {"C": 0.001},
    "logreg": {"C": 0.001, "tol": 0.01},
}


def publish(root, *, limit, maps=False):
    """Publish digits whose rows were computed in another order than they stand in the table."""
    X, y, splits = digits(N, maps=maps)
    recipe, store = recipe_for(X.shape[1:]), Store(root, limit=limit)
    item_ids = np.random.default_rng(0).integers(0, 256, (N, 32), dtype=np.uint8)
    for rows in np.array_split(np.random.default_rng(1).permutation(N), PIECES):
        store.commit(recipe.key, item_ids[rows], X[rows])
    content = TableContent(
        key=recipe.key, recipe=recipe.to_json(),
        request=Request(backbone="alexnet", weights="none", image_size=64).to_json(),
        ids=[f"{i:04}.png" for i in range(N)], item_ids=item_ids, y=y, classes=NAMES, splits=list(splits),
    )  # fmt: skip
    return Features.open(store.publish("digits", "alexnet-features", content))


@pytest.fixture(scope="module", params=[False, True], ids=["vectors", "maps"])
def both(request, tmp_path_factory):
    """The same table as one file, and in segments."""
    root = tmp_path_factory.mktemp("caches")
    found = [publish(root / name, limit=limit, maps=request.param) for name, limit in [("one", 1 << 30), ("many", 10)]]
    assert [len(Table(features.path).segments) for features in found] == [0, PIECES]
    return found


vectors = pytest.mark.parametrize("both", [False], indirect=True, ids=["vectors"])
maps = pytest.mark.parametrize("both", [True], indirect=True, ids=["maps"])

READERS = {
    "all": lambda t: t.X,
    "one": lambda t: t[-3],
    "slice": lambda t: t[30:900:7],
    "neighbours": lambda t: t[100:164],
    "any order": lambda t: t[np.random.default_rng(2).integers(-N, N, 500)],
    "mask": lambda t: t[t.y == 3],
    "none": lambda t: t[[]],
    "split": lambda t: t.split("test")[0],
    "selection": lambda t: t.select("train").select(slice(5, 50)).X,
    "blocks": lambda t: np.concatenate([X for _, X in t.blocks(10_000)]),
    "shuffled": lambda t: np.concatenate([X for _, X in t.blocks(10_000, shuffle=True, seed=3)]),
    "pickled": lambda t: pickle.loads(pickle.dumps(t)).X,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_same_rows(both, reader):
    one, many = (READERS[reader](features) for features in both)

    assert one.dtype == many.dtype
    assert np.array_equal(one, many)


@pytest.mark.parametrize(
    "column",
    ["y", "ids", "splits", "item_ids", "classes", "errors", "recipe", "request", "key", "views", "shape", "dtype"],
)
def test_columns_are_the_same(both, column):
    one, many = (getattr(features, column) for features in both)

    assert np.array_equal(one, many) if isinstance(one, np.ndarray) else one == many


def without_seconds(report):
    """Return a report without what each run takes anew: the table's path, and seconds, those of each trial too."""
    tried = [dict(trial, seconds=None) for trial in report.get("tried", ())]
    return dict(report, table=None, seconds=None, tried=tried)


def same_model(both, *words, **options):
    """Fit on both tables and hold probabilities and reports against each other; return the second model."""
    models = [featx.fit(features, *words, **options) for features in both]
    one, many = (without_seconds(model.report) for model in models)
    assert one == many
    assert np.array_equal(models[0].predict_proba(both[0]), models[1].predict_proba(both[1]))
    return models[1]


@vectors
@pytest.mark.parametrize("head", sorted(set(REGISTRY) - {"conv", "attentive"}))
def test_every_head_learns_the_same(both, head):
    model = same_model(both, head, settings=QUICK.get(head, {}), test=True)

    assert model.report["test"]["n"] == 252


@vectors
@pytest.mark.parametrize("head", ["logreg", "mlp", "ridge", "xgboost"])
def test_heads_learn_the_same_from_a_stream(both, head):
    same_model(both, head, settings=QUICK.get(head, {}), memory="300KiB")


@maps
@pytest.mark.parametrize("head", ["conv", "attentive"])
def test_a_head_on_maps_learns_the_same(both, head):
    same_model(both, head, settings=QUICK[head])


@vectors
def test_searches_and_folds_find_the_same(both):
    same_model(both, "ridge", search="alpha=0.1,10", cv=3, refit=True)


@vectors
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_protocol_reports_the_same(both, name):
    one, many = (dict(featx.run_protocol(features, name).report, table=None, seconds=None) for features in both)

    assert one == many


def content(path):
    match path.suffix:
        case ".npz":
            with np.load(path) as file:
                return {name: file[name].tolist() for name in file.files}
        case ".parquet":
            return pyarrow.parquet.read_table(path).to_pydict()
        case ".csv":
            return pyarrow.csv.read_csv(path).to_pydict()
    with h5py.File(path) as file:
        return {name: file[name][:].tolist() for name in ("X", "y", "ids", "split", "classes", "item_id")}


@pytest.mark.parametrize("ending", ["npz", "parquet", "csv", "h5"])
def test_every_export_is_the_same(both, tmp_path, ending):
    one, many = (features.export(tmp_path / f"{i}.{ending}") for i, features in enumerate(both))

    assert content(one) == content(many)
    if ending == "h5":
        assert Table(many).segments == []
        assert np.array_equal(Features.open(many).X, both[0].X)


@vectors
def test_evaluations_and_reports_are_the_same(both):
    model = featx.fit(both[0], "ridge")

    one, many = (evaluate(model, features).to_dict() for features in both)
    pages = [featx.report(model, table=features).html for features in both]

    assert one == many
    assert re.sub(r"cache|<time.*?</time>", "", pages[0]) == re.sub(r"cache|<time.*?</time>", "", pages[1])


# The cache folder


@pytest.fixture
def cache(tmp_path):
    publish(tmp_path, limit=10)
    return tmp_path


def command(capsys, cache, *words):
    assert main([*map(str, words), "--cache", str(cache), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_cache_commands_know_a_table_with_its_segments(cache, capsys):
    segments = sorted((cache / ".segments").rglob("*.h5"))
    n_bytes = sum(path.stat().st_size for path in segments)

    (table,) = command(capsys, cache, "cache", "list")["entries"]
    info = command(capsys, cache, "cache", "info", table["path"])
    checked = command(capsys, cache, "cache", "verify")
    removed = command(capsys, cache, "cache", "gc", "--orphans")

    assert table["shape"] == info["shape"] == [N, 64]
    assert table["n_bytes"] > n_bytes
    assert (checked["files"], checked["damaged"]) == (1 + PIECES, [])
    assert removed["removed"] == []
    freed = command(capsys, cache, "cache", "rm", table["path"])
    assert freed["bytes"] == table["n_bytes"]
    assert not list((cache / ".segments").rglob("*.h5"))


def test_gc_by_size_takes_a_table_with_its_segments(cache, capsys):
    removed = command(capsys, cache, "cache", "gc", "--max-size", "0")

    assert len(removed["removed"]) == 1
    assert not list((cache / ".segments").rglob("*.h5"))


def test_a_damaged_segment_costs_its_own_rows(cache, capsys):
    victim = sorted((cache / ".segments").rglob("*.h5"))[3]
    data = bytearray(victim.read_bytes())
    data[-3] ^= 4
    victim.write_bytes(data)

    assert main(["cache", "verify", "--cache", str(cache)]) == 1
    assert victim.name in capsys.readouterr().err
    command(capsys, cache, "cache", "verify", "--repair")

    key = recipe_for((64,)).key
    item_ids = np.random.default_rng(0).integers(0, 256, (N, 32), dtype=np.uint8)
    assert (~Store(cache).find(key, item_ids)).sum() == N // PIECES


# Extraction


def photos_of(tmp_path, numbers):
    """An npz of images of noise, the same for the same number."""
    path = tmp_path / f"images-{len(numbers)}.npz"
    images = [np.random.default_rng(i).integers(0, 256, (24, 24, 3), dtype=np.uint8) for i in numbers]
    np.savez(path, X=np.stack(images), y=np.array(numbers) % 3)
    return path


@pytest.fixture(params=["4GiB", "500B"])
def limited(request, monkeypatch):
    monkeypatch.setenv("FEATX_TABLE_LIMIT", request.param)
    return request.param == "500B"


def test_extraction_finds_and_grows_tables_of_either_form(limited, tmp_path):
    twelve, twenty = photos_of(tmp_path, range(12)), photos_of(tmp_path, range(20))
    cache, fresh = tmp_path / "cache", tmp_path / "fresh"

    first, second = (run(twelve, cache) for _ in range(2))
    grown = run(twenty, cache)
    relabelled = run(photos_of(tmp_path, range(19, -1, -1)), cache)
    shrunk = run(photos_of(tmp_path, range(7)), cache)
    alone = run(twenty, fresh)

    assert [done.computed for done in (first, second, grown, relabelled, shrunk)] == [12, 0, 8, 0, 0]
    tables = [done.tables[0] for done in (first, grown, relabelled, shrunk, alone)]
    assert [bool(Table(table.path).segments) for table in tables] == [limited] * 5
    np.testing.assert_allclose(Features.open(grown.tables[0].path).X, alone.tables[0].X, rtol=1e-5, atol=1e-7)
    assert np.array_equal(tables[2].X, tables[1].X[::-1])
    assert np.array_equal(tables[3].X, tables[1].X[:7])


def test_views_of_either_form_are_the_same(limited, tmp_path, monkeypatch):
    twelve = photos_of(tmp_path, range(12))
    table = run(twelve, tmp_path / "cache", 3).tables[0]
    monkeypatch.setenv("FEATX_TABLE_LIMIT", "4GiB")
    other = run(twelve, tmp_path / "other", 3).tables[0]

    assert bool(Table(table.path).segments) == limited
    assert np.array_equal(table.all_views()[0].X, other.all_views()[0].X)
    assert featx.fit(table, "ridge").report["val"] == featx.fit(other, "ridge").report["val"]


def test_a_table_takes_the_form_of_the_limit_when_it_is_written_anew(tmp_path, monkeypatch):
    twelve, twenty = photos_of(tmp_path, range(12)), photos_of(tmp_path, range(20))
    rows = {}
    for limit, images in [("1KiB", twelve), ("4GiB", twenty), ("1KiB", twelve)]:
        monkeypatch.setenv("FEATX_TABLE_LIMIT", limit)
        done = run(images, tmp_path / "cache", dataset={"name": "same"})
        rows[limit, len(done.tables[0])] = done.tables[0].X
        assert bool(Table(done.tables[0].path).segments) == (limit == "1KiB")

    assert np.array_equal(rows["1KiB", 12], rows["4GiB", 20][:12])


def test_a_limit_that_is_no_size_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_TABLE_LIMIT", "much")

    with pytest.raises(OptionError, match="A size is a number of bytes such as 2GiB"):
        run(photos_of(tmp_path, range(3)), tmp_path / "cache")
