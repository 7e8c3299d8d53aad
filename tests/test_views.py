"""Augmented views: computed once beside the plain rows, found by content, for training rows alone."""

import dataclasses
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from toy_rows import KEY, features, items, publish

import featx
from featx import extraction
from featx.augment import Augmentation, seed_of
from featx.cli import main
from featx.errors import CorruptFileError, DataError, OptionError
from featx.extraction import Options, parse_views
from featx.recipe import Recipe, Request, View
from featx.store import Store

SMALL = Request(backbone="test_views:network", version="1", weights="none", image_size=24)


def network():
    """Return a network of a few weights."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 24, 3, stride=2), nn.ReLU())


def run(source, cache, n=None, augment="light", *, request=SMALL, seed=0, dataset=None, **how):
    """Extract with `n` views; None for none."""
    views = parse_views(n, None if n is None else augment, seed)
    options = Options(**{"workers": 0, "engine": "eager", "batch_size": 4, **how})
    dataset = extraction.open_dataset(source, **dataset or {})
    return extraction.run(dataset, request, cache=cache, options=options, views=views)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_views_leave_the_plain_rows_and_their_key_alone(photos, cache):
    plain = run(photos, cache)
    with_views = run(photos, cache, 3)
    table = with_views.tables[0]

    assert (plain.computed, with_views.computed, with_views.reused) == (12, 24, 12)
    assert table.path == plain.tables[0].path
    assert (table.key, table.recipe) == (plain.tables[0].key, plain.tables[0].recipe)
    np.testing.assert_array_equal(table.X, plain.tables[0].X)
    assert table.views == 3
    assert [len(table.view(number)) for number in range(3)] == [12, 12, 12]
    assert len({table.view(number).X.tobytes() for number in range(3)}) == 3


def test_more_views_cost_only_those_that_were_not_there(photos, cache):
    first = run(photos, cache, 4).tables[0]
    before = [first.view(number).X for number in range(4)]

    more = run(photos, cache, 8)

    assert more.computed == 12 * 4
    for number, rows in enumerate(before):
        np.testing.assert_array_equal(more.tables[0].view(number).X, rows)
    assert run(photos, cache, 8).computed == 0
    assert run(photos, cache, 2).tables[0].views == 2


def test_views_at_once_equal_views_later(photos, tmp_path):
    once = run(photos, tmp_path / "a", 3).tables[0]
    run(photos, tmp_path / "b")
    later = run(photos, tmp_path / "b", 3).tables[0]

    for number in range(3):
        np.testing.assert_array_equal(once.view(number).X, later.view(number).X)


def test_a_view_is_the_network_on_the_augmented_pixels(photos, cache):
    """Each image is drawn by its own content, whatever stands beside it."""
    from featx import backbones
    from featx.engines import open_engine
    from featx.images import prepare

    table = run(photos, cache, 2, "flip,rotate=30", seed=5).tables[0]
    recipe, augmentation = table.recipe, Augmentation.parse("flip,rotate=30")
    engine = open_engine(backbones.load(SMALL), [recipe], engine="eager", batch_size=4)
    view = table.view(1)
    for row in (0, 7):
        pixels = prepare((photos / view.ids[row]).read_bytes(), recipe.frame)[None]
        seeds = np.array([seed_of(view.item_ids[row].tobytes(), 1, 5)])
        (expected,) = engine.run(augmentation.apply(pixels, seeds))

        np.testing.assert_allclose(view.X[row], expected[0], rtol=1e-4, atol=1e-5)


def test_another_augmentation_or_seed_is_other_views(photos, cache):
    views = [run(photos, cache, 2, spec, seed=seed) for spec, seed in [("light", 0), ("flip", 0), ("light", 1)]]

    assert [done.computed for done in views] == [24, 12, 12]
    assert run(photos, cache, 2, "zoom_range=0.1,horizontal_flip,rotation_range=2").computed == 0


def test_only_rows_for_training_have_views(photos, tmp_path, cache):
    sets = tmp_path / "sets"
    for split, numbers in {"test": (3,), "train": (0, 1), "val": (2,)}.items():
        for name in ("red", "green", "blue"):
            (sets / split / name).mkdir(parents=True)
            for i in numbers:
                shutil.copy(photos / name / f"{i}.jpg", sets / split / name)

    done = run(sets, cache, 3)
    (table,) = done.tables

    assert done.computed == 12 + 2 * 6
    assert set(table.view(2).splits) == {"train"}
    assert table.view(2).ids.tolist() == table.select("train").ids.tolist()
    assert table.view(2).y.tolist() == table.select("train").y.tolist()
    assert len(table.select("test").view(1)) == 0


def test_data_without_training_rows_refuse_views(photos, tmp_path, cache):
    shutil.copytree(photos, tmp_path / "sets" / "test")

    with pytest.raises(OptionError, match="--views are for training rows"):
        run(tmp_path / "sets", cache, 2)


def test_labels_of_views_are_those_that_the_table_has_now(photos, cache):
    run(photos, cache, 2)
    (photos / "red").rename(photos / "azure")

    done = run(photos, cache)  # views were not asked for: the table keeps those it has
    (table,) = done.tables

    assert (done.reused, table.views) == (12, 2)
    assert [name.split("/")[0] for name in table.view(1).ids] == [table.classes[y] for y in table.view(1).y]
    assert "azure" in table.classes


def test_images_added_later_have_views_once_these_are_asked_for(photos, cache):
    run(photos, cache, 3)
    Image.new("RGB", (50, 40), "orange").save(photos / "red" / "new.png")

    (plain,) = run(photos, cache).tables
    assert (len(plain), len(plain.view(1))) == (13, 12)

    again = run(photos, cache, 3)
    assert again.computed == 2
    assert len(again.tables[0].view(2)) == 13


def test_a_refresh_computes_all_views_again(photos, cache):
    run(photos, cache, 3)

    assert run(photos, cache, 3, refresh=True).computed == 12 * 3


def test_a_bad_image_is_no_row_of_any_view(photos, cache):
    (photos / "red" / "bad.jpg").write_bytes((photos / "red" / "0.jpg").read_bytes()[:200])

    done = run(photos, cache, 3, max_errors="1")

    assert done.computed == 12 * 3
    assert [name for name, _ in done.tables[0].errors] == ["red/bad.jpg"]
    assert [len(done.tables[0].view(number)) for number in (1, 2)] == [12, 12]


def test_several_layers_have_views_from_one_pass(photos, cache):
    done = run(photos, cache, 3, request=dataclasses.replace(SMALL, layers=("0", "2")))

    assert done.computed == 12 * 3
    assert [table.views for table in done.tables] == [3, 3]
    assert all(len(table.view(2)) == 12 for table in done.tables)


def test_an_interrupted_run_goes_on_where_it_was(photos, tmp_path, cache, monkeypatch):
    """Segments of one batch; the third of the views ends the run."""
    monkeypatch.setattr("featx.extraction.segments.SEGMENT_SECONDS", 0.0)
    whole = run(photos, tmp_path / "whole", 3).tables[0]

    def stop(progress):
        if progress.step == "views" and progress.done == progress.total:
            raise KeyboardInterrupt

    dataset, options = extraction.open_dataset(photos), Options(workers=0, engine="eager", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        extraction.run(dataset, SMALL, cache=cache, options=options, on_progress=stop, views=parse_views(3, "light"))
    resumed = run(photos, cache, 3)

    assert resumed.computed == 4 * 2
    for number in range(3):
        np.testing.assert_array_equal(resumed.tables[0].view(number).X, whole.view(number).X)


def test_the_file_names_its_views_and_they_are_plain_hdf5(photos, cache):
    (table,) = run(photos, cache, 3).tables

    with h5py.File(table.path) as file:
        names = [name.decode() for name in file["views/table"]]
    assert len(names) == 2
    for number, name in enumerate(names, start=1):
        with h5py.File(table.path.parent / name) as file:
            recipe = Recipe.from_json(file.attrs["recipe"])
            assert recipe.view == View(number=number, augment="flip,rotate=2,zoom=0.1", seed=0)
            assert recipe.plain == table.recipe
            np.testing.assert_array_equal(file["item_id"], table.item_ids)
            np.testing.assert_array_equal(file["X"], table.view(number).X)


def test_damage_to_a_view_is_found_and_costs_only_its_rows(photos, cache):
    from featx.store.maintenance import collect, verify

    (table,) = run(photos, cache, 3).tables
    store = extraction.open_store(cache)
    path = table.path.parent / h5py.File(table.path)["views/table"][1].decode()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)

    assert [one.path for one in verify(store) if one.problem] == [path]
    assert [one.path for one in verify(store, repair=True) if one.problem] == [path]
    assert collect(store)
    assert run(photos, cache, 3).computed <= 12
    assert not [one for one in verify(extraction.open_store(cache)) if one.problem]


def test_collecting_garbage_leaves_views_alone_and_a_removed_one_is_not_counted(photos, cache):
    from featx.store.maintenance import collect, remove_table

    (table,) = run(photos, cache, 4).tables
    store = extraction.open_store(cache)
    collect(store, orphans=True)
    assert featx.Features.open(table.path).views == 4

    remove_table(store, next(table.path.parent.glob("*-view2-*.h5")))

    assert featx.Features.open(table.path).views == 2
    assert run(photos, cache, 4).computed == 12


def test_the_views_of_a_removed_table_go_with_it(photos, cache):
    from featx.store.maintenance import entries, remove_table

    table = run(photos, cache, 3).tables[0]
    other = run(photos, cache, 2, request=dataclasses.replace(SMALL, pool="max")).tables[0]
    store = extraction.open_store(cache)
    n_bytes = sum(path.stat().st_size for path in table.path.parent.glob("*avg*.h5"))

    assert remove_table(store, table.path) == n_bytes
    assert len(entries(store)) == 2
    assert other.path.exists()


def test_a_dry_run_counts_views(photos, cache):
    dataset, options = extraction.open_dataset(photos), Options(workers=0, engine="eager")
    run(photos, cache, 2)

    def estimate(n):
        return extraction.estimate(dataset, SMALL, cache=cache, options=options, views=parse_views(n, "light"))

    assert (estimate(2).to_compute, estimate(4).to_compute) == (0, 24)


@pytest.mark.parametrize(
    ("n", "augment", "message"),
    [
        (4, None, "--augment flip,rotate=2"),
        (None, "flip", "--views 4"),
        (1, "flip", "--views 4"),
        (0, None, "at least 1"),
        (2, " ", "--augment is empty"),
    ],
)
def test_views_and_augmentation_come_together(n, augment, message):
    with pytest.raises(OptionError, match=message):
        parse_views(n, augment)


def test_one_view_is_the_plain_one():
    assert parse_views(1, None) is None


def test_all_views_stand_behind_one_another(photos, cache):
    how = {"backbone": SMALL.backbone, "version": "1", "weights": "none", "image_size": 24, "cache": cache}
    table = featx.extract(photos, **how, workers=0, views=3, augment="flip")
    part = table.select(slice(2, 7))

    everything, origin = part.all_views()
    fewer, _ = part.all_views(2)

    assert (everything.shape[0], fewer.shape[0]) == (15, 10)
    np.testing.assert_array_equal(origin, np.tile(np.arange(5), 3))
    np.testing.assert_array_equal(everything.X, np.concatenate([part.view(number).X for number in range(3)]))
    np.testing.assert_array_equal(everything.y, part.y[origin])
    np.testing.assert_array_equal(everything[[12, 0, 6]], everything.X[[12, 0, 6]])
    blocks = [indices for indices, _ in everything.blocks(500, shuffle=True)]
    assert sorted(np.concatenate(blocks).tolist()) == list(range(15))


def test_a_view_that_is_not_there_is_refused(photos, cache):
    (table,) = run(photos, cache, 2).tables

    with pytest.raises(DataError, match="featx extract DATA --views 3"):
        table.view(2)


def test_a_store_says_of_a_table_what_was_said_last_about_its_views(cache):
    store, item_ids = Store(cache), items(4)
    store.commit(KEY, item_ids, features(item_ids))
    names = ["toy-view1-01234567.h5", "toy-view2-01234567.h5"]

    said = [store.table(publish(store, item_ids, views=views)).views for views in ((), names, names[:1], ())]

    assert said == [[], names, names[:1], []]


@pytest.mark.parametrize("name", ["../other/table.h5", "/etc/passwd", "..", "x.txt"])
def test_views_outside_the_folder_of_their_table_are_damage(cache, name):
    store, item_ids = Store(cache), items(4)
    store.commit(KEY, item_ids, features(item_ids))
    path = publish(store, item_ids, views=[name])

    with pytest.raises(CorruptFileError, match="not beside it"):
        _ = featx.Features.open(path).views


def test_tables_with_views_are_removed_whichever_are_named(photos, cache):
    run(photos, cache, 3)
    tables = sorted(cache.glob("photos-*/*.h5"))
    assert len(tables) == 3

    assert main(["cache", "rm", "--cache", str(cache), *map(str, tables)]) == 0
    assert not list(cache.glob("photos-*/*.h5"))
    run(photos, cache, 3)
    assert main(["cache", "gc", "--cache", str(cache), "--orphans", "--max-size", "0"]) == 0
    assert not list(cache.glob("photos-*/*.h5"))
