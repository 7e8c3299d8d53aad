"""From images to tables: every row by content, computed once, joined to its own label."""

import contextlib
import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

import featx
from featx import extraction
from featx.cli import main
from featx.errors import DataError, OptionError, ProbeError, TooManyErrors
from featx.extraction import Options, executors
from featx.recipe import Request
from featx.store import Store

SMALL = Request(image_size=32)


def run(source, cache, request=SMALL, dataset=None, on_progress=None, **how):
    options, opened = (
        Options(**{"workers": 0, "engine": "eager"} | how),
        extraction.open_dataset(source, **dataset or {}),
    )
    return extraction.run(opened, request, cache=cache, options=options, on_progress=on_progress)


def test_a_table_is_plain_hdf5_with_every_field(photos, tmp_path):
    (table,) = run(photos, tmp_path / "cache").tables

    with h5py.File(table.path) as file:
        assert file["X"].shape == (12, 1280)
        assert file["item_id"].shape == (12, 32)
        assert {"y", "ids", "classes", "split", "errors", "probe"} <= set(file)
        assert {"recipe", "request", "key", "format"} <= set(file.attrs)
        assert [c.decode() for c in file["classes"]] == ["blue", "green", "red"]


def test_progress_begins_before_the_network_is_there_and_ends_with_all_images(photos, tmp_path, monkeypatch):
    seen, opened, open_agreed = [], [], executors.open_agreed
    monkeypatch.setattr(executors, "open_agreed", lambda *a, **k: opened.append(len(seen)) or open_agreed(*a, **k))
    done = run(
        photos, tmp_path / "cache", on_progress=lambda one: one.step == "extract" and seen.append((one.done, one.total))
    )

    assert opened == [1]
    assert seen[0] == (0, done.n_images)
    assert seen[-1] == (done.n_images, done.n_images)


def test_a_second_run_computes_nothing_and_writes_nothing(photos, tmp_path):
    first = run(photos, tmp_path / "cache")
    written = first.tables[0].path.stat().st_mtime_ns

    second = run(photos, tmp_path / "cache")

    assert (first.computed, second.computed, second.reused) == (12, 0, 12)
    assert second.tables[0].path.stat().st_ino == first.tables[0].path.stat().st_ino
    assert second.tables[0].provenance == first.tables[0].provenance
    assert written


def test_a_second_run_imports_no_torch(photos, tmp_path):
    run(photos, tmp_path / "cache")
    code = (
        "import sys; from featx.cli import main; "
        f"code = main(['extract', {str(photos)!r}, '--image-size', '32', '--cache', {str(tmp_path / 'cache')!r}]); "
        "print(code, 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 False"
    assert "0 computed" in done.stdout


def test_renamed_images_cost_no_forward_pass_and_keep_their_features(photos, tmp_path):
    before = run(photos, tmp_path / "cache").tables[0]
    rows = dict(zip(before.ids.tolist(), before.X, strict=True))
    (photos / "red" / "0.jpg").rename(photos / "red" / "zz.jpg")

    after = run(photos, tmp_path / "cache")

    assert after.computed == 0
    moved = after.tables[0].ids.tolist().index("red/zz.jpg")
    np.testing.assert_array_equal(after.tables[0].X[moved], rows["red/0.jpg"])


def test_a_renamed_class_costs_no_forward_pass_and_changes_labels(photos, tmp_path):
    run(photos, tmp_path / "cache")
    (photos / "red").rename(photos / "scarlet")

    after = run(photos, tmp_path / "cache")

    assert after.computed == 0
    assert after.tables[0].classes == ("blue", "green", "scarlet")
    assert {i.split("/")[0] for i in after.tables[0].ids} == {"blue", "green", "scarlet"}


def test_added_images_are_the_only_ones_computed(photos, tmp_path):
    run(photos, tmp_path / "cache")
    for name in ("new1", "new2"):
        Image.new("RGB", (40, 40), (len(name), int(name[-1]), 200)).save(photos / "blue" / f"{name}.png")

    assert run(photos, tmp_path / "cache").computed == 2


def test_identical_images_are_computed_once_and_are_two_rows(photos, tmp_path):
    shutil.copy(photos / "red" / "0.jpg", photos / "blue" / "copy.jpg")

    done = run(photos, tmp_path / "cache")

    assert (done.computed, len(done.tables[0])) == (12, 13)
    table = done.tables[0]
    ids = table.ids.tolist()
    a, b = ids.index("red/0.jpg"), ids.index("blue/copy.jpg")
    np.testing.assert_array_equal(table.X[a], table.X[b])
    assert table.y[a] != table.y[b]


def test_another_dataset_with_the_same_images_reuses_their_rows(photos, tmp_path):
    run(photos, tmp_path / "cache")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in photos.rglob("*.jpg"):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")

    done = run(flat, tmp_path / "cache")

    assert (done.computed, done.reused) == (0, 12)
    assert set(done.tables[0].y.tolist()) == {-1}


def test_several_layers_in_one_pass_equal_one_pass_each(photos, tmp_path):
    layers = ("blocks.2", "blocks.6")
    both = run(photos, tmp_path / "both", Request(image_size=32, layers=layers)).tables

    for layer, table in zip(layers, both, strict=True):
        (alone,) = run(photos, tmp_path / layer, Request(image_size=32, layers=(layer,))).tables
        np.testing.assert_allclose(table.X, alone.X, rtol=1e-5, atol=1e-6)
        assert table.key == alone.key


def test_features_are_the_models_own(photos, tmp_path):
    """The table equals timm's network in eval mode on timm's own preprocessing."""
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config

    from featx import backbones

    (table,) = run(photos, tmp_path / "cache", Request()).tables
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    state = backbones.load(Request()).module.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    transform = create_transform(**resolve_data_config(model=network))
    batch = torch.stack([transform(Image.open(photos / name).convert("RGB")) for name in table.ids])
    with torch.inference_mode():
        expected = network.eval()(batch).numpy()

    assert np.abs(table.X - expected).max() / np.abs(expected).max() < 1e-5
    assert np.abs(expected[0] - expected[-1]).max() > 0.01


def test_a_bad_image_is_listed_with_its_reason_and_never_a_row(photos, tmp_path):
    (photos / "red" / "bad.jpg").write_bytes((photos / "red" / "0.jpg").read_bytes()[:200])

    done = run(photos, tmp_path / "cache", max_errors="1")

    ((name, reason),) = done.tables[0].errors
    assert name == "red/bad.jpg"
    assert "truncated" in reason
    assert "red/bad.jpg" not in done.tables[0].ids.tolist()
    assert run(photos, tmp_path / "cache", max_errors="1").computed == 0


def test_too_many_bad_images_fail_the_run_with_all_others_kept(photos, tmp_path):
    (photos / "red" / "bad.jpg").write_text("no image")

    with pytest.raises(TooManyErrors, match=r"1 of 13 images cannot be read.*bad\.jpg.*kept in"):
        run(photos, tmp_path / "cache")

    assert run(photos, tmp_path / "cache", max_errors="10%").computed == 0


def test_a_refresh_leaves_the_tables_of_other_images(photos, tmp_path):
    run(photos / "red", tmp_path / "cache")
    (other,) = run(photos / "blue", tmp_path / "cache").tables

    assert run(photos / "red", tmp_path / "cache", refresh=True).computed == 4
    assert other.path.exists()
    assert run(photos / "blue", tmp_path / "cache").computed == 0


def test_an_estimate_of_a_refresh_counts_every_image(photos, tmp_path):
    run(photos, tmp_path / "cache")
    dataset = extraction.open_dataset(photos)

    def to_compute(**how):
        options = Options(workers=0, engine="eager", **how)
        return extraction.estimate(dataset, SMALL, cache=tmp_path / "cache", options=options).to_compute

    assert (to_compute(), to_compute(refresh=True)) == (0, 12)


def test_nothing_but_bad_images_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no image")

    with pytest.raises(DataError, match="None of the 1 images gave features"):
        run(tmp_path / "photos", tmp_path / "cache")


def test_a_machine_that_computes_other_features_refuses_to_mix_until_refreshed(photos, tmp_path):
    """Rows whose probe says other features stand in for a library that changed its numbers."""
    first = run(photos, tmp_path / "cache")
    table = first.tables[0]
    store = extraction.open_store(tmp_path / "cache")
    from featx.extraction.executors import _encode, _probe_record, stored_probe

    probe = stored_probe(store, table.recipe)
    store.put_record(_probe_record(table.recipe), {k: _encode(v + (v.dtype.kind == "f")) for k, v in probe.items()})
    Image.new("RGB", (40, 40), "orange").save(photos / "red" / "new.png")
    (other,) = run(photos / "blue", tmp_path / "cache").tables

    with pytest.raises(ProbeError, match="--refresh"):
        run(photos, tmp_path / "cache")
    done = run(photos, tmp_path / "cache", refresh=True)

    assert done.computed == 13
    assert not other.path.exists()  # its rows are those of the other library, too


def test_edited_in_place_with_times_kept_is_found_with_rehash(photos, tmp_path):
    run(photos, tmp_path / "cache")
    path = photos / "red" / "0.jpg"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert run(photos, tmp_path / "cache").computed == 0
    assert run(photos, tmp_path / "cache", rehash=True).computed == 1


def test_a_dry_run_says_what_would_be_computed_and_publishes_nothing(photos, tmp_path):
    dataset = extraction.open_dataset(photos)
    options = Options(workers=0, engine="eager")

    estimate = extraction.estimate(dataset, SMALL, cache=tmp_path / "cache", options=options)

    assert (estimate.n_images, estimate.to_compute) == (12, 12)
    assert estimate.n_bytes >= 12 * 1280 * 4
    assert not list((tmp_path / "cache").glob("[!.]*/*.h5"))


def test_an_impossible_disk_is_refused_before_any_work(tmp_path):
    """2,000,000,000 rows of vgg16's first pooled map at 224 would fill any disk this test meets."""
    from featx.errors import NoSpaceError
    from featx.extraction.executors import check_space
    from featx.extraction.plan import Plan, resolve

    (tmp_path / "cache").mkdir()
    store = extraction.open_store(tmp_path / "cache")
    request = Request(layers=("blocks.0",), pool="flatten")
    plan = Plan(None, request, resolve(request, store)[0], store, np.zeros((1, 32), np.uint8))

    with pytest.raises(NoSpaceError, match="--pool avg"):
        check_space(plan, 2_000_000_000)


def test_a_users_function_is_not_cached_without_a_version(photos, tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(OptionError, match="--backbone-version"):
        run(photos, tmp_path / "cache", Request(backbone="mynet:net", image_size=32))
    done = run(photos, tmp_path / "cache", Request(backbone="mynet:net", image_size=32, version="1"))

    assert done.computed == 12


def test_featx_extract_returns_one_table_or_one_a_layer(photos, tmp_path):
    how = {"image_size": 32, "cache": tmp_path / "cache", "workers": 0}

    one = featx.extract(photos, **how)
    several = featx.extract(photos, layer=["blocks.2", "blocks.6"], **how)

    assert one.shape == (12, 1280)
    assert [t.shape[0] for t in several] == [12, 12]


def test_a_set_of_layers_is_one_pass_and_a_table_a_layer_and_pool(photos, tmp_path, capsys):
    how = {"image_size": 32, "cache": tmp_path / "cache", "workers": 0, "engine": "eager"}
    one = featx.extract(photos, layer="blocks.2", **how)

    tables = featx.extract(photos, layers="stages", pool="avg+max", **how)
    typed = ["extract", str(photos), "--layers", "stages", "--pool", "max", "--image-size", "32"]
    code = main([*typed, "--cache", str(tmp_path / "cache"), "--json"])
    told = json.loads(capsys.readouterr().out)

    assert one.path in [table.path for table in tables]
    assert [table.recipe.pool for table in tables] == ["avg", "max"] * (len(tables) // 2)
    assert (code, told["computed"]) == (0, 0)
    assert [table["key"] for table in told["tables"]] == [table.key for table in tables[1::2]]
    with pytest.raises(OptionError, match="--layer and --layers both say which layers"):
        featx.extract(photos, layer="blocks.2", layers="stages", **how)


def test_labels_follow_their_images_whatever_the_order(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    y = np.arange(9) % 3
    np.savez(tmp_path / "a.npz", X=images, y=y)
    order = rng.permutation(9)
    np.savez(tmp_path / "b.npz", X=images[order], y=y[order])

    a = run(tmp_path / "a.npz", tmp_path / "cache").tables[0]
    b = run(tmp_path / "b.npz", tmp_path / "cache")

    assert b.computed == 0
    np.testing.assert_array_equal(b.tables[0].X, a.X[order])
    np.testing.assert_array_equal(b.tables[0].y, a.y[order])


def test_each_name_of_a_layer_has_its_table(photos, tmp_path):
    """Keras calls ``features.2`` of VGG-11 ``block1_pool``."""
    how = {"backbone": "vgg11", "weights": "none", "image_size": 32, "workers": 0, "engine": "eager"}
    names = ["features.2", "block1_pool", "features.10"]
    tables = featx.extract(photos, layer=names, cache=tmp_path / "cache", **how)

    assert [table.recipe.layer for table in tables] == ["features.2", "features.2", "features.10"]
    assert tables[0].key == tables[1].key


@pytest.mark.parametrize(("second", "batch_size"), [("cpu", 3), ("A Large GPU", 5)])
def test_what_an_unfinished_run_chose_holds_on_the_same_kind_of_device_alone(
    photos, tmp_path, monkeypatch, second, batch_size
):
    """The batch of a GPU would not fit a smaller one, and its engine would leave a GPU idle."""
    monkeypatch.setattr("featx.engines.choose.default_batch_size", lambda *_: 3)
    names = iter(["A Large GPU", second])
    monkeypatch.setattr(executors, "device_name", lambda _: next(names))

    def stop(progress):
        if progress.step == "extract" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "cache", batch_size=5, on_progress=stop)
    (table,) = run(photos, tmp_path / "cache").tables

    assert table.provenance["batch_size"] == batch_size
    assert table.provenance["device"] == second


@pytest.mark.parametrize(("batch_size", "n_opened"), [(5, 1), (3, 2)])
def test_of_processes_that_start_together_one_opens_again_only_for_another_batch(
    photos, tmp_path, monkeypatch, batch_size, n_opened
):
    """Another was the first to choose, after this one had looked: in how many rows a segment is cut is no matter."""
    monkeypatch.setattr("featx.engines.choose.default_batch_size", lambda *_: 5)
    first = {"engine": "eager", "batch_size": batch_size, "segment_rows": batch_size, "device": "cpu"}
    plan, opened, open_ = Store.plan, [], executors._open

    def overtaken(store, key, default=None):
        return plan(store, key, default and first)

    monkeypatch.setattr(Store, "plan", overtaken)
    monkeypatch.setattr(executors, "_open", lambda *arguments: opened.append(open_(*arguments)) or opened[-1])
    (table,) = run(photos, tmp_path / "cache").tables

    assert len(opened) == n_opened
    assert table.provenance["batch_size"] == batch_size


def test_a_device_is_looked_for_where_the_work_is_done(photos, tmp_path):
    """A cluster may have the GPU that this machine lacks."""

    class Elsewhere:
        def run(self, plan, segment, on_progress):
            raise KeyboardInterrupt

    dataset, options = extraction.open_dataset(photos), Options(device="cuda:63")
    with pytest.raises(KeyboardInterrupt):
        extraction.run(dataset, SMALL, cache=tmp_path / "cache", options=options, executor=Elsewhere())
    with pytest.raises(OptionError, match="--device cuda:63 is not there"):
        extraction.run(dataset, SMALL, cache=tmp_path / "cache", options=options)


def test_a_version_is_for_functions_of_the_users_own(photos, tmp_path):
    run(photos, tmp_path / "cache")

    with pytest.raises(OptionError, match="--backbone-version 2 is for your own package.module:function"):
        run(photos, tmp_path / "cache", Request(image_size=32, version="2"))


def test_a_model_takes_the_rows_that_a_cache_has_and_computes_the_others(photos, tmp_path, monkeypatch):
    from featx.engines import Engine

    (table,) = run(photos / "red", tmp_path / "cache").tables
    forwards, start = [], Engine.start
    maker = extraction.RowMaker(lambda: contextlib.nullcontext([SMALL]), [table.recipe], [table.probe])
    monkeypatch.setattr(Engine, "start", lambda self, pixels: forwards.append(len(pixels)) or start(self, pixels))

    def rows(folder, cache):
        dataset = extraction.open_dataset(folder)
        (found,), reasons = maker.rows(dataset, cache=cache, workers=0, engine="eager", batch_size=4)
        assert reasons == {}
        return found, forwards[:], forwards.clear()

    cached, none, _ = rows(photos / "red", tmp_path / "cache")
    computed, _, _ = rows(photos / "red", None)
    rows(photos, tmp_path / "cache")
    _, some, _ = rows(photos, tmp_path / "cache")
    _, all_of_them, _ = rows(photos, tmp_path / "no cache")

    assert none == []
    np.testing.assert_array_equal(cached, table.X)
    np.testing.assert_allclose(computed, table.X, rtol=0, atol=1e-4)
    assert (some, all_of_them) == ([4, 4], [4, 4, 4])
    assert not (tmp_path / "no cache").exists()


def test_rows_of_a_cache_that_disagrees_with_the_models_probe_are_not_taken(photos, tmp_path):
    (table,) = run(photos / "red", tmp_path / "cache").tables
    rows = np.full((4, 1280), 7, np.float32)
    images = extraction.open_dataset(photos / "red")
    store = extraction.open_store(tmp_path / "other")
    store.commit(table.key, table.item_ids, rows)
    maker = extraction.RowMaker(lambda: contextlib.nullcontext([SMALL]), [table.recipe], [table.probe])
    how = {"cache": tmp_path / "other", "workers": 0, "engine": "eager"}
    store.require_writable()

    np.testing.assert_array_equal(maker.rows(images, **how)[0][0], rows)

    probe = {name: array + (array.dtype.kind == "f") for name, array in table.probe.items()}
    store.put_record(executors._probe_record(table.recipe), {k: executors._encode(v) for k, v in probe.items()})
    np.testing.assert_allclose(maker.rows(images, **how)[0][0], table.X, rtol=0, atol=1e-4)


def test_the_default_layer_has_a_name_wherever_layers_are_named(photos, tmp_path, capsys):
    how = {"image_size": 32, "cache": tmp_path / "cache", "workers": 0, "engine": "eager"}
    alone = featx.extract(photos, **how)

    named = featx.extract(photos, layer="default", **how)
    both = featx.extract(photos, layer=["blocks.2", "default"], **how)
    typed = ["--layer", "default", "--layer", "blocks.2", "--image-size", "32", "--cache", str(tmp_path / "cache")]
    code = main(["extract", str(photos), *typed, "--json"])
    told = json.loads(capsys.readouterr().out)
    rows = featx.FeatureExtractor(layer="default", **how).fit_transform([photos / name for name in alone.ids])

    assert (named.key, named.path, [table.key for table in both]) == (alone.key, alone.path, [both[0].key, alone.key])
    assert (code, told["computed"]) == (0, 0)
    assert [table["layer"] for table in told["tables"]] == ["default", "blocks.2"]
    np.testing.assert_array_equal(rows, alone.X)
