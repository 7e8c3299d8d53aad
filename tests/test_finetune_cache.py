"""Fine-tuning from the cache: the same steps as with frozen blocks below, which never run again."""

import numpy as np
import pytest
import torch

import featx
from featx import backbones
from featx.errors import OptionError
from featx.finetuning.network import Classifier, Trainable
from featx.finetuning.settings import Settings
from featx.finetuning.sources import Activations

#: Plain gradient descent: the first steps of Adam turn rounding into whole steps.
HOW = {"init_head": "none", "optimizer": "sgd", "momentum": 0.0, "lr": 1e-3, "schedule": "none", "batch_size": 8,
       "epochs": 1, "workers": 0, "val": 0.2}  # fmt: skip


@pytest.fixture(scope="module")
def images():
    """30 noisy images of two classes, one of them reddish."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (30, 36, 36, 3), dtype=np.uint8)
    pixels[::2, ..., 0] += 50
    return pixels, ["red", "grey"] * 15


def tune(images, cache, **changes):
    return featx.finetune(images[0], labels=images[1], cache=cache, **(HOW | changes))


def state_of(model):
    with model.loadable_requests() as (request,):
        return backbones.load(request).module.state_dict()


@pytest.mark.parametrize(
    ("network", "boundary"),
    [
        ({"backbone": "efficientnet_lite0", "image_size": 64, "unfreeze": 1}, (192, 2, 2)),
        (
            {
                "backbone": "squeezenet1_1",
                "weights": "none",
                "image_size": 64,
                "unfreeze": "features.8",
                "head_layers": "gap 8",
            },
            (256, 3, 3),
        ),
    ],
    ids=["efficientnet_lite0", "squeezenet1_1"],
)
def test_first_steps_are_those_of_ordinary_training(images, tmp_path, network, boundary, monkeypatch):
    shapes = set()
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, x: shapes.add(tuple(x.shape[1:])) or forward(self, x))
    ordinary = tune(images, tmp_path, **network)
    assert shapes == {(network["image_size"], network["image_size"], 3)}
    shapes.clear()

    cached = tune(images, tmp_path, **network, from_cache=True)

    assert shapes == {boundary}
    steps = [model.report["iterations"]["loss"] for model in (cached, ordinary)]
    assert len(steps[0]) == 3
    np.testing.assert_allclose(*steps, rtol=1e-5)
    ours, theirs = state_of(cached), state_of(ordinary)
    for name, tensor in ours.items():  # the whole network: what was frozen too
        scale = theirs[name]
        if name.endswith("running_mean"):  # a mean is measured in spreads: it may well be next to zero
            scale = theirs[name.replace("_mean", "_var")].sqrt()
        distance = torch.linalg.norm((tensor - theirs[name]).double())
        assert distance <= 1e-5 * torch.linalg.norm(scale.double()), name
    assert cached.report["n_parameters"] == ordinary.report["n_parameters"]
    assert cached.report["val"] == ordinary.report["val"]


def test_the_saved_model_is_the_whole_network(images, tmp_path):
    model = tune(images, tmp_path, image_size=64, unfreeze=1, from_cache=True, lr=1e-2)
    loaded = featx.load(model.save(tmp_path / "m.featx"))

    before = backbones.load(featx.Request()).module.state_dict()
    after = state_of(loaded)
    changed = {name.split(".")[0] + name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert {name for name in changed if name.startswith("blocks")} == {"blocks6"}
    scores = np.log(loaded.predict_proba(images[0], workers=0)) * loaded.calibration.temperature
    from featx.datasets import item_id

    chosen_on = {row.tobytes() for row in loaded.chosen_on}
    val = [i for i, image in enumerate(images[0]) if item_id(image) in chosen_on]
    codes = torch.tensor([loaded.classes.index(images[1][i]) for i in val])
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(scores[val]), codes)
    assert float(loss) == pytest.approx(loaded.report["history"]["val_loss"][0], rel=1e-4)


def test_a_keras_layer_begins_with_its_convolution():
    request = featx.Request(backbone="vgg11", weights="none", image_size=32)
    backbone, (recipe,) = backbones.resolve(request)
    trainable = Trainable(backbone, recipe, request, Settings(unfreeze="block4_conv1"))

    assert (trainable.start, trainable.blocks.before(trainable.start)) == ("features.11", "features.10")


def test_each_epoch_shows_another_view_of_training_images(photos, tmp_path):
    table = featx.extract(
        photos, backbone="scratch/leaky", weights="none", layer="features.1", pool="none", image_size=16, val=0.25,
        cache=tmp_path / "cache", views=3, augment="brightness=0.5", workers=0, engine="eager",
    )  # fmt: skip
    source = Activations(table)
    train, val = np.flatnonzero(table.splits == "train"), np.flatnonzero(table.splits == "val")

    for epoch, view in [(None, 0), (0, 0), (1, 1), (2, 2), (3, 0)]:
        expected = dict(zip(table.view(view).ids, table.view(view).X, strict=True))
        for position, row in zip(train, source.batch(train, epoch).numpy(), strict=True):
            np.testing.assert_array_equal(row, expected[table.ids[position]])
        np.testing.assert_array_equal(source.batch(val, epoch).numpy(), table[val])
    assert len(table.view(1)) == len(train)


def test_views_change_what_is_learned_and_go_with_the_cache_only(images, tmp_path):
    how = {"backbone": "scratch/leaky-deep", "weights": "none", "image_size": 16, "unfreeze": 1, "augment": "flip"}
    how |= {"head_layers": "flat", "epochs": 2, "lr": 1e-2}
    one = tune(images, tmp_path, **how | {"augment": ""}, from_cache=True)
    two = tune(images, tmp_path, **how, from_cache=True, views=2)

    assert one.report["history"]["loss"][0] == two.report["history"]["loss"][0]
    assert one.report["history"]["loss"][1] != two.report["history"]["loss"][1]
    with pytest.raises(OptionError, match="--views 4"):
        tune(images, tmp_path, **how, from_cache=True)
    with pytest.raises(OptionError, match="go with --from-cache"):
        tune(images, tmp_path, **how, views=2)


def test_what_cannot_be_cut_says_where_it_can(images, tmp_path):
    resnet = {"backbone": "resnet18", "weights": "none", "image_size": 32, "from_cache": True}

    with pytest.raises(OptionError, match="--unfreeze 1"):
        tune(images, tmp_path, **resnet)
    with pytest.raises(OptionError, match=r"Begin at a block: --unfreeze layer1\.0\.conv1 or layer2"):
        tune(images, tmp_path, **resnet, unfreeze="layer4.0.conv2")
