"""Model files from strangers: refused, and nothing in them imported or run."""

import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tables import digits, table
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from featx.errors import ModelFileError, WeightsError
from featx.heads.booster_json import check_booster
from featx.model import Model, archive, fit, load
from featx.recipe import Request


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return table(tmp_path_factory.mktemp("cache"), *digits(400))


@pytest.fixture(scope="module")
def saved(features, tmp_path_factory):
    """The file of a ridge model."""
    return fit(features, "ridge").save(tmp_path_factory.mktemp("models") / "ridge.featx")


@pytest.fixture(scope="module")
def trees(features, tmp_path_factory):
    """The file of an XGBoost model."""
    settings = {"n_estimators": 3, "components": 8}
    return fit(features, "xgboost", settings=settings).save(tmp_path_factory.mktemp("models") / "trees.featx")


def forged(source, target, *, card=None, members=None, reseal=True):
    """Copy a model with changed members and a card that vouches for them."""
    found = archive.read(source) | (members or {})
    found = {name: content for name, content in found.items() if content is not None}
    fields = json.loads(found.pop("model.json"))
    if reseal:
        fields["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in found.items()
        }
    fields = {**fields, **(card or {})}
    archive.write(target, {"model.json": json.dumps(fields).encode(), **found})
    return target


def test_row_22_bits_flipped_anywhere_are_found(saved, tmp_path):
    content = saved.read_bytes()
    path = tmp_path / "flipped.featx"
    for place in range(0, len(content), 13):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(ModelFileError, match="not a model file that featx reads"):
            load(path)


@pytest.mark.parametrize("name", ["model.json", "head.safetensors", "items.safetensors"])
def test_row_22_every_member_is_needed(saved, tmp_path, name):
    members = archive.read(saved)
    del members[name]
    archive.write(tmp_path / "m.featx", members)

    with pytest.raises(ModelFileError, match="a member is missing"):
        load(tmp_path / "m.featx")


def test_row_22_a_member_swapped_with_another_models_is_found(saved, trees, tmp_path):
    other = archive.read(trees)["head.safetensors"]

    with pytest.raises(ModelFileError, match=r"head.safetensors is not the one that model.json describes"):
        load(forged(saved, tmp_path / "m.featx", members={"head.safetensors": other}, reseal=False))


def recipe_with(saved, **changes):
    recipe = json.loads(archive.read(saved)["model.json"])["recipe"]
    return {"recipe": recipe | changes}


HOSTILE_CARDS = [
    ({"format": 2}, "of format 2, this featx reads 1"),
    ({"classes": []}, "classes"),
    ({"classes": ["a", "a"]}, "classes"),
    ({"classes": [1, 2]}, "classes"),
    ({"classes": ["a", "b"]}, "head knows classes that the model does not"),
    ({"temperature": 0}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": -1.5}, "temperature"),
    ({"floor": 2}, "floor"),
    ({"scale": "pickle"}, "'scale' of model.json is not one of none, standard, l2"),
    ({"scale": "none"}, "scaling"),
    ({"head": {}}, "allow-list"),
    ({"head": {"class": "os.system"}}, "allow-list"),
    ({"head": {"class": ["RidgeHead"]}}, "not a model file"),
    ({"head": []}, "'head' of model.json is not an object"),
    ({"head_name": None}, "'head_name' of model.json is not a text"),
    ({"report": 3}, "'report' of model.json is not an object"),
    ({"report": {"history": {"step": [1, 2], "loss": [0.5]}}}, "'history' of its report is not columns of numbers"),
    ({"report": {"history": {"val_step": [1], "val_loss": [0.5, 1]}}}, "'history' of its report is not columns"),
    ({"members": {}}, "lists other members"),
    ({"recipe": 7}, "recipe"),
    ({"recipe": {}}, "recipe"),
    ({"request": {"backbone": 7}}, "request"),
    ({"request": {"unknown": 7}}, "request"),
    ({"request": {"pool": "rm -rf"}}, "request"),
    ({"request": {"layers": [7]}}, "request"),
    ({"request": {"image_size": "big"}}, "not a model file"),
]


@pytest.mark.parametrize(("card", "reason"), HOSTILE_CARDS)
def test_row_22_a_card_that_lies_is_refused(saved, tmp_path, card, reason):
    with pytest.raises(ModelFileError, match=reason):
        load(forged(saved, tmp_path / "m.featx", card=card))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [64, 64]},
        {"shape": [-64]},
        {"shape": [10**12]},
        {"shape": ["64"]},
        {"shape": 64},
        {"shape": [32]},
        {"weights_digest": "../../etc/passwd"},
        {"pool": "eval"},
        {"layer": 3},
        {"backbone": None},
        {"mean": [0, 0]},
        {"mean": "000"},
        {"std": [0, 1, 1]},
        {"std": [1, 1, float("inf")]},
        {"version": 3},
        {"format": 9},
        {"extra": 1},
        {"frame": {}},
        {"frame": "224"},
    ],
)
def test_row_22_a_recipe_that_lies_is_refused(saved, tmp_path, changes):
    with pytest.raises(ModelFileError, match="not a model file that featx reads"):
        load(forged(saved, tmp_path / "m.featx", card=recipe_with(saved, **changes)))


@pytest.mark.parametrize(
    "changes",
    [{"height": 10**9}, {"width": 0}, {"shorter": -1}, {"resize": "exec"}, {"background": [1, 2]}, {"decode": 1}],
)
def test_row_22_a_frame_that_lies_is_refused(saved, tmp_path, changes):
    frame = recipe_with(saved)["recipe"]["frame"] | changes

    with pytest.raises(ModelFileError, match="recipe"):
        load(forged(saved, tmp_path / "m.featx", card=recipe_with(saved, frame=frame)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "does not parse"),
        (b"[]", "not an object"),
        (b"not json", "does not parse"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"format": 1, "format": 1}', "one name twice"),
        (b'{"temperature": NaN}', "NaN is not a number of JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "does not parse"),
        (b'"\\' * 100_000, "does not parse"),
        (b"\xff\xfe{}", "does not parse"),
    ],
)
def test_row_22_hostile_json_is_refused_quickly(saved, tmp_path, text, reason):
    archive.write(tmp_path / "m.featx", archive.read(saved) | {"model.json": text})

    with pytest.raises(ModelFileError, match=f"not a model file that featx reads: .*{reason}"):
        load(tmp_path / "m.featx")


def changed_arrays(saved, **changes):
    arrays = load_arrays(archive.read(saved)["head.safetensors"]) | changes
    return {"head.safetensors": save_arrays({k: v for k, v in arrays.items() if v is not None})}


@pytest.mark.parametrize(
    "changes",
    [
        {"scaler.mean_": None},
        {"scaler.mean_": np.zeros(3, np.float32)},
        {"scaler.mean_": np.zeros(64, np.int32)},
        {"scaler.scale_": np.zeros(64, np.float32)},
        {"scaler.scale_": np.full(64, np.nan, np.float32)},
        {"scaler.__class__": np.zeros(1)},
        {"head.coef_": None},
        {"head.coef_": np.zeros((10, 63), np.float32)},
        {"head.coef_": np.full((10, 64), np.inf, np.float32)},
        {"head.intercept_": np.tile([1e308, -1e308], 5)},
        {"head.fit": np.zeros(1)},
        {"head.classes_": np.arange(10) - 1},
        {"head.classes_": np.arange(10) + 1},
    ],
)
def test_row_22_arrays_that_do_not_fit_are_refused(saved, tmp_path, changes):
    with pytest.raises(ModelFileError, match="not a model file that featx reads"):
        load(forged(saved, tmp_path / "m.featx", members=changed_arrays(saved, **changes)))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_row_22_damaged_safetensors_are_refused(saved, tmp_path_factory, content):
    path = tmp_path_factory.mktemp("noise") / "m.featx"
    with pytest.raises(ModelFileError, match="not a model file that featx reads"):
        load(forged(saved, path, members={"head.safetensors": content}))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "Z99", 3])
def test_row_22_safetensors_of_odd_types_are_refused(saved, tmp_path, dtype):
    header = json.dumps({"head.coef_": {"dtype": dtype, "shape": [1], "data_offsets": [0, 2]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0\0"

    with pytest.raises(ModelFileError, match="not a model file that featx reads"):
        load(forged(saved, tmp_path / "m.featx", members={"head.safetensors": content}))


@pytest.mark.parametrize(
    "items",
    [
        {"trained_on": np.zeros((2, 32), np.uint8)},
        {"trained_on": np.zeros((2, 31), np.uint8), "chosen_on": np.zeros((0, 32), np.uint8)},
        {"trained_on": np.zeros((2, 32), np.int8), "chosen_on": np.zeros((0, 32), np.uint8)},
    ],
)
def test_row_22_item_lists_that_are_none_are_refused(saved, tmp_path, items):
    with pytest.raises(ModelFileError, match="trained items"):
        load(forged(saved, tmp_path / "m.featx", members={"items.safetensors": save_arrays(items)}))


def test_row_22_a_probe_that_is_none_is_refused(saved, tmp_path):
    probe = save_arrays({"pixels": np.zeros((1, 32), np.uint8)})

    with pytest.raises(ModelFileError, match="probe"):
        load(forged(saved, tmp_path / "m.featx", members={"probe.safetensors": probe}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def booster_with(trees, **changes):
    document = json.loads(archive.read(trees)["head.json"])
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    for name, change in changes.items():
        tree[name][0] = change
    return {"head.json": json.dumps(document).encode()}


def test_row_22_trees_that_lead_astray_are_refused_before_xgboost_reads_them(trees, tmp_path):
    lies = [
        {"left_children": 2**30},
        {"left_children": -5},
        {"left_children": 0},
        {"right_children": 10**12},
        {"split_indices": 2**31 - 1},
        {"split_indices": -1},
        {"parents": 3},
    ]
    paths = [forged(trees, tmp_path / f"{i}.featx", members=booster_with(trees, **lie)) for i, lie in enumerate(lies)]
    script = (
        "import sys; from featx.model import load; from featx.errors import ModelFileError\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path)\n"
        "    except ModelFileError as error: print(error)\n"
    )
    # In a process of its own: what the check let through might crash.
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)

    assert done.stdout.count("The boosted trees in the model file are damaged or hostile") == len(lies)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_row_22_any_value_anywhere_in_the_trees_is_refused_or_harmless(trees, data):
    """What the check accepts, whoever follows children and features stays within the arrays, and comes to an end."""
    document = json.loads(archive.read(trees)["head.json"])
    n_features = int(document["learner"]["learner_model_param"]["num_feature"])
    model = document["learner"]["gradient_booster"]["model"]
    tree = data.draw(st.sampled_from(model["trees"]))
    if data.draw(st.booleans()):  # lies that only just fit
        name = data.draw(st.sampled_from(sorted(name for name in tree if isinstance(tree[name], list) and tree[name])))
        place = data.draw(st.integers(0, len(tree[name]) - 1))
        tree[name][place] = data.draw(st.integers(-2, len(tree["parents"]) + 1) | JSON)
    else:
        *path, last = data.draw(st.sampled_from([place for place in places(model) if place]))
        holder = model
        for key in path:
            holder = holder[key]
        holder[last] = data.draw(JSON)
    try:
        check_booster(document, n_features=n_features, objective="multi:softprob", n_outputs=10)
    except ModelFileError:
        return
    for tree in model["trees"]:
        n, seen, stack = len(tree["parents"]), set(), [0]
        assert all(len(tree[name]) == n for name in ("left_children", "right_children", "split_indices"))
        while stack:
            node = stack.pop()
            assert 0 <= node < n
            assert node not in seen
            seen.add(node)
            assert 0 <= tree["split_indices"][node] < n_features
            if tree["left_children"][node] != -1:
                stack += [tree["left_children"][node], tree["right_children"][node]]


def test_row_22_settings_of_the_wrong_kind_are_found_at_once(features, tmp_path):
    path = fit(features, "knn").save(tmp_path / "knn.featx")
    head = json.loads(archive.read(path)["model.json"])["head"]

    for k in ("three", None, [1], {"pairs": []}):
        head["params"]["k"] = k
        with pytest.raises(ModelFileError, match="not a model file that featx reads"):
            load(forged(path, tmp_path / "m.featx", card={"head": head}))


def test_row_22_trees_that_are_missing_or_something_else_are_refused(trees, saved, tmp_path):
    for name, text in (("a", None), ("b", b"{}"), ("c", b"[" * 10_000), ("d", b"{" + b'"learner": {"a": ' * 50)):
        with pytest.raises(ModelFileError, match="not a model file that featx reads"):
            load(forged(trees, tmp_path / name, members={"head.json": text}))


class Trap:
    """Unpickling one of these writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path(self.path).write_text, ("sprung",))


@pytest.mark.parametrize("name", ["head.pickle", "head.safetensors", "head.json", "model.json", "network.safetensors"])
def test_row_22_a_pickle_is_never_opened_whatever_it_is_called(saved, tmp_path, name):
    path = tmp_path / "m.featx"
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    assert b"write_text" in trap
    if name == "model.json":
        archive.write(path, archive.read(saved) | {name: trap})
    else:
        forged(saved, path, members={name: trap})

    with pytest.raises(ModelFileError):
        load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("file", ["network.safetensors", "weights.pth"])
def test_row_22_a_pickle_for_a_network_is_refused_when_it_is_needed(saved, tmp_path, file):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    path = forged(saved, tmp_path / "m.featx", members={"network.safetensors": trap}, card={"network_file": file})

    with pytest.raises((ModelFileError, WeightsError), match="weights"):
        load(path).predict([tmp_path / "photo.png"])
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("shape", [[-1], [1 << 62, 1 << 62], [0.5], [[2, 3]], [7]])
def test_row_22_a_shape_that_no_weights_have_is_refused_when_it_is_needed(saved, tmp_path, shape):
    tensors = save_arrays({"shape of features.0.weight": np.array(shape)})
    path = forged(
        saved, tmp_path / "m", members={"network.safetensors": tensors}, card={"network_file": "network.safetensors"}
    )

    with pytest.raises((ModelFileError, WeightsError), match="weights"):
        load(path).predict([tmp_path / "photo.png"])


@pytest.mark.parametrize("file", ["../x.pth", "/etc/x.pth", "a/b.safetensors", ".pth", "x.pkl", "", None, "x.pth\n"])
def test_row_22_a_network_goes_nowhere_else(saved, tmp_path, file):
    tensors = save_arrays({"weight": np.zeros(1)})

    with pytest.raises(ModelFileError, match=r"name of a weights file|network_file"):
        load(forged(saved, tmp_path / "m", members={"network.safetensors": tensors}, card={"network_file": file}))


def test_row_22_a_plain_pickle_in_place_of_a_model_is_refused(tmp_path):
    (tmp_path / "m.featx").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))

    with pytest.raises(ModelFileError, match="not a model file that featx reads"):
        load(tmp_path / "m.featx", unsafe_pickle=True, allow_code=True)
    assert not (tmp_path / "sprung").exists()


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module whose import writes a file."""
    (tmp_path / "trapmodule.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\ndef net(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "trapmodule:net"


def test_row_22_a_backbone_that_is_code_needs_permission_and_loading_imports_nothing(saved, tmp_path, own_code):
    request = json.loads(Request(backbone=own_code, version="1").to_json())
    path = forged(saved, tmp_path / "m.featx", card={"request": request})

    with pytest.raises(ModelFileError, match=r"m.featx is not loaded: its backbone is the code .*--allow-code"):
        load(path)
    assert load(path, allow_code=True).request.backbone == own_code
    assert not (tmp_path / "sprung").exists()
    assert "trapmodule" not in sys.modules


def test_row_22_code_in_the_recipe_alone_needs_permission_too(saved, tmp_path, own_code):
    path = forged(saved, tmp_path / "m.featx", card=recipe_with(saved, backbone=own_code))

    with pytest.raises(ModelFileError, match="--allow-code"):
        load(path)


@settings(deadline=None)
@given(st.data())
def test_row_22_any_value_anywhere_in_the_card_is_refused_or_makes_a_model(saved, tmp_path_factory, data):
    card = json.loads(archive.read(saved)["model.json"])
    del card["members"]
    *path, last = data.draw(st.sampled_from([place for place in places(card) if place]))
    holder = card
    for key in path:
        holder = holder[key]
    holder[last] = data.draw(JSON)
    try:
        model = load(forged(saved, tmp_path_factory.mktemp("fuzz") / "m.featx", card=card))
    except ModelFileError:
        return
    assert isinstance(model, Model)
