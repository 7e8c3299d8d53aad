"""Fine-tuning: what trains and what does not, how it starts, what comes out, and that a kill changes nothing."""

import json
import os
import signal
import sys

import numpy as np
import pretended_gpu
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load as load_safetensors

import featx
from featx import backbones
from featx.cli import cli
from featx.errors import DataError, ImageSizeError, OptionError, TooManyErrors, UnknownLayerError, WeightsUnavailable
from featx.finetuning.start import fit_on_features, starting_weights, unfitted_head
from featx.model.network import network_of

#: Small and quick; no test asks how good the network becomes.
QUICK = {
    "backbone": "scratch/leaky",
    "weights": "none",
    "image_size": 8,
    "lr": 1e-3,
    "epochs": 2,
    "batch_size": 16,
    "workers": 0,
    "val": 0.25,
    "head_layers": "16 leaky.1",
}


@pytest.fixture(scope="module")
def images():
    """48 images of 12×12 pixels in three classes: noise tinted red, green or blue."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    pixels = rng.integers(0, 160, (48, 12, 12, 3), dtype=np.uint8)
    pixels[np.arange(48), :, :, y] += 60
    return pixels, [("red", "green", "blue")[label] for label in y]


def tune(images, **changes):
    pixels, labels = images
    return featx.finetune(pixels, labels=labels, **(QUICK | changes))


def state_of(model):
    """Return the tensors of the network that a model holds."""
    with model.loadable_requests() as (request,):
        return {name: tensor.clone() for name, tensor in backbones.load(request).module.state_dict().items()}


def nbytes(tensor):
    return tensor.numel() * tensor.element_size()


def initial_state(**changes):
    request = featx.Request(backbone=changes.get("backbone", "scratch/leaky"), weights="none")
    return backbones.load(request).module.state_dict()


def assert_same_weights(model, other):
    ours, theirs = state_of(model), state_of(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(np.array_equal(model.head.state_[name], other.head.state_[name]) for name in model.head.state_)


# What comes out


def test_a_saved_model_holds_no_weights_that_its_features_do_not_need(images, tmp_path):
    """The classifier of AlexNet, which nothing reads here, is nine tenths of it."""
    pixels, _ = images
    trained = tune(images, backbone="alexnet", weights="none", image_size=64, epochs=1, unfreeze="1", precision="fp32")
    path = trained.save(tmp_path / "m.featx")
    ours, theirs = state_of(featx.load(path)), initial_state(backbone="alexnet")

    assert path.stat().st_size < sum(map(nbytes, theirs.values())) / 9
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in theirs.items()}
    assert not any(tensor.any() for name, tensor in ours.items() if name.startswith("classifier."))
    assert all(torch.equal(ours[name], theirs[name]) for name in ("features.0.weight", "features.0.bias"))
    assert not torch.equal(ours["features.10.weight"], theirs["features.10.weight"])
    assert np.array_equal(featx.load(path).predict_proba(pixels[:4]), trained.predict_proba(pixels[:4]))


def test_weights_that_are_tied_to_needed_ones_are_kept():
    backbone = backbones.load(featx.Request(backbone="scratch/leaky", weights="none"))
    first, *_, last = (name for name, one in backbone.module.named_parameters() if one.ndim > 1)
    backbone.module.tied = torch.nn.Module()
    backbone.module.tied.weight = backbone.module.get_parameter(first)
    held = load_safetensors(network_of(backbone, used={first}).tensors)

    assert np.array_equal(held["tied.weight"], held[first])
    assert last not in held
    assert held[f"shape of {last}"].tolist() == list(backbone.module.get_parameter(last).shape)


def test_a_saved_model_predicts_what_the_trained_network_computed(images, tmp_path):
    pixels, labels = images
    trained = tune(images, backbone="scratch/cnn25", image_size=32, precision="fp32", epochs=3)
    loaded = featx.load(trained.save(tmp_path / "m.featx"))

    probabilities = loaded.predict_proba(pixels, workers=0, engine="eager")
    scores = np.log(probabilities) * loaded.calibration.temperature  # undo what calibration adds
    held_out = [i for i in range(48) if hash_of(loaded.chosen_on, pixels[i])]
    codes = np.array([loaded.classes.index(labels[i]) for i in held_out])
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(scores[held_out]), torch.from_numpy(codes))

    best = loaded.report["chosen"]["epoch"] - 1
    assert len(held_out) == loaded.report["val"]["n"] == 12
    assert float(loss) == pytest.approx(loaded.report["history"]["val_loss"][best], rel=1e-5)
    accuracy = (scores[held_out].argmax(axis=1) == codes).mean()
    assert accuracy == loaded.report["val"]["accuracy"] == loaded.report["history"]["val_accuracy"][best]


def hash_of(hashes, image):
    from featx.datasets import item_id

    return item_id(image) in {row.tobytes() for row in hashes}


def test_the_report_tells_all_that_plots_need(images):
    report = tune(images, epochs=2).report
    history, iterations = report["history"], report["iterations"]

    assert report["kind"] == "scratch"
    assert report["n_parameters"] == 5088 + (32 * 4 * 4 + 1) * 16 + 17 * 3
    assert {name: len(column) for name, column in history.items()} == dict.fromkeys(
        ["loss", "accuracy", "lr", "val_loss", "val_accuracy"], 2
    )
    assert iterations["step"] == [1, 2, 3, 4, 5, 6]
    assert len(iterations["loss"]) == len(iterations["accuracy"]) == 6
    assert iterations["val_step"] == [3, 6]
    assert iterations["val_loss"] == history["val_loss"]
    assert np.mean(iterations["loss"][3:]) == pytest.approx(history["loss"][1])
    assert report["settings"]["head_layers"] == "16 leaky.1"
    json.dumps(report.to_dict())


def test_the_weights_are_those_of_the_best_epoch(images):
    one = tune(images, epochs=1, schedule="none", lr=1e-4)
    # The first epoch is the best because the loss of the others is no better by so much.
    more = tune(images, epochs=3, schedule="none", lr=1e-4, monitor="val_loss", min_delta=10.0)

    assert more.report["chosen"]["epoch"] == 1
    assert len(more.report["history"]["loss"]) == 3
    assert_same_weights(one, more)


def test_test_rows_are_looked_at_only_when_asked(images, tmp_path):
    pixels, labels = images[0], np.array(images[1])
    np.savez(tmp_path / "d.npz", x_train=pixels[:36], y_train=labels[:36], x_test=pixels[36:], y_test=labels[36:])

    assert featx.finetune(tmp_path / "d.npz", **QUICK).report["test"] is None
    assert featx.finetune(tmp_path / "d.npz", **QUICK, test=True).report["test"]["n"] == 12
    cached = QUICK | {"backbone": "scratch/leaky-deep", "unfreeze": 1, "from_cache": True, "cache": tmp_path / "cache"}
    assert featx.finetune(tmp_path / "d.npz", **cached).report["test"] is None
    with pytest.raises(OptionError, match="Leave out --test"):
        tune(images, test=True)


def test_a_two_class_network_and_a_convolutional_head(images, tmp_path):
    pixels, labels = images
    two = [i for i in range(48) if labels[i] != "red"]
    model = featx.finetune(
        pixels[two], labels=[labels[i] for i in two], **(QUICK | {"head_layers": "bn gap 8 relu drop.5"})
    )

    assert type(model.head).__name__ == "ConvHead"
    assert model.recipe.pool == "none"
    again = featx.load(model.save(tmp_path / "m.featx"))
    np.testing.assert_allclose(
        again.predict_proba(pixels[:4], workers=0), model.predict_proba(pixels[:4], workers=0), rtol=1e-6
    )


# What trains


def test_frozen_blocks_keep_every_tensor_and_the_others_learn(images):
    before = initial_state(backbone="scratch/cnn25")
    after = state_of(tune(images, backbone="scratch/cnn25", image_size=32, unfreeze=2))
    changed = {name.rpartition(".")[0] for name in after if not torch.equal(before[name], after[name])}

    assert changed == {"features.12", "features.13", "features.16", "features.17"}


@pytest.mark.parametrize(("unfreeze", "first"), [("features.13", 13), ("features.15", 16), ("1", 16)])
def test_training_starts_at_a_named_layer(images, unfreeze, first):
    before = initial_state(backbone="scratch/cnn25")
    after = state_of(tune(images, backbone="scratch/cnn25", image_size=32, unfreeze=unfreeze, epochs=1))
    changed = {int(name.split(".")[1]) for name in after if not torch.equal(before[name], after[name])}

    assert min(changed) == first


def test_frozen_batch_norm_keeps_statistics_scale_and_shift(images):
    before = initial_state(backbone="scratch/cnn25")
    after = state_of(tune(images, backbone="scratch/cnn25", image_size=32, freeze_bn=True))
    changed = {int(name.split(".")[1]) for name in after if not torch.equal(before[name], after[name])}

    assert changed == {0, 4, 8, 12, 16}  # convolutions


def test_batch_norm_stays_as_it_is_where_weights_are_pretrained(images, photos, tmp_path):
    scratch = tune(images, backbone="scratch/cnn25", image_size=32, epochs=1)
    how = {"image_size": 32, "workers": 0, "cache": tmp_path, "epochs": 1, "init_head": "none"}

    assert not scratch.report["settings"]["freeze_bn"]
    assert featx.finetune(photos, **how).report["settings"]["freeze_bn"]
    assert not featx.finetune(photos, **how, freeze_bn=False).report["settings"]["freeze_bn"]


def test_frozen_blocks_run_without_gradients(images, monkeypatch):
    from featx.finetuning.network import Classifier

    seen = []
    forward = Classifier.forward

    def watched(self, batch):
        scores = forward(self, batch)
        if torch.is_grad_enabled():
            names, edge = set(), [scores.grad_fn]
            while edge:
                node = edge.pop()
                names.add(type(node).__name__)
                edge += [following for following, _ in node.next_functions if following is not None]
            seen.append(
                sum("Convolution" in name for name in names),
            )
            seen.append(len(list(filter(lambda p: p.requires_grad, self.body.parameters()))))
        return scores

    monkeypatch.setattr(Classifier, "forward", watched)
    tune(images, backbone="scratch/leaky-deep", unfreeze=1, epochs=1)

    assert set(seen) == {1, 4}


def test_blocks_of_networks_are_what_their_authors_list_side_by_side():
    from featx.finetuning.network import find_blocks

    def first_units(name, **changes):
        request = featx.Request(backbone=name, weights="none", image_size=64, **changes)
        backbone, (recipe,) = backbones.resolve(request)
        return [block[0] for block in find_blocks(backbone, recipe.layer).units]

    assert first_units("scratch/leaky-deep") == ["features.0", "features.6"]
    assert first_units("alexnet", layers=("relu7",)) == [
        "features.0", "features.3", "features.6", "classifier.1", "classifier.4",
    ]  # fmt: skip
    assert first_units("resnet18") == ["conv1", *(f"layer{i}.0.conv1" for i in range(1, 5))]
    assert first_units("timm/tf_efficientnet_lite0")[-1] == "blocks.6.0.conv_pw"
    assert len(first_units("timm/tf_efficientnet_lite0")) == 8


def test_rates_fall_block_by_block_and_biases_do_not_decay():
    from featx.finetuning.network import Trainable
    from featx.finetuning.settings import Settings

    request = featx.Request(backbone="scratch/cnn25", weights="none")
    backbone, (recipe,) = backbones.resolve(request)
    settings = Settings(layer_decay=0.5, head_lr_mult=10.0, unfreeze="2", weight_decay=0.1)
    groups = Trainable(backbone, recipe, request, settings).groups(torch.nn.Linear(2, 2), settings)

    assert [group["multiplier"] for group in groups] == [0.25, 0.25, 0.5, 0.5, 10.0, 10.0]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0] * 3
    assert all(p.ndim > 1 for group in groups[::2] for p in group["params"])
    assert all(p.ndim == 1 for group in groups[1::2] for p in group["params"])


# How it trains


def test_equal_seeds_make_equal_files_and_augmentation_others(images, tmp_path):
    one, two = (tune(images, augment="flip,rotate=5") for _ in range(2))

    assert one.save(tmp_path / "1.featx").read_bytes() == two.save(tmp_path / "2.featx").read_bytes()
    assert not np.array_equal(one.head.state_["0.weight"], tune(images).head.state_["0.weight"])
    assert not np.array_equal(
        one.head.state_["0.weight"], tune(images, augment="flip,rotate=5", seed=1).head.state_["0.weight"]
    )


def test_accumulated_gradients_are_those_of_the_whole_batch(images):
    whole = tune(images, batch_size=18, epochs=1)
    parts = tune(images, batch_size=9, accumulate=2, epochs=1)

    assert whole.report["iterations"]["step"] == parts.report["iterations"]["step"] == [1, 2]
    np.testing.assert_allclose(whole.head.state_["0.weight"], parts.head.state_["0.weight"], atol=1e-6)


def test_a_plateau_lowers_the_rate_and_early_stopping_ends_the_run(images):
    report = tune(
        images, epochs=10, schedule="plateau", patience=2, factor=0.1, min_lr=2e-5, min_delta=9.0, early_stop=5
    ).report

    assert report["history"]["lr"] == pytest.approx([1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 2e-5])
    assert report["chosen"]["epoch"] == 1


def test_the_rate_warms_up_and_then_falls_as_a_cosine(images):
    rates = tune(images, epochs=4, warmup=2, schedule="cosine").report["history"]["lr"]

    assert rates[0] == pytest.approx(1e-3 * 3 / 7)
    assert rates[1] == pytest.approx(1e-3 * 6 / 7)
    assert rates[3] < rates[2] < 1e-3


def test_low_precision_trains_too(images):
    report = tune(images, precision="bf16").report

    assert np.isfinite(report["history"]["loss"]).all()
    with pytest.raises(OptionError, match="--precision bf16"):
        tune(images, precision="fp16", device="cpu")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamax", "adamw"])
def test_every_optimizer_learns(images, optimizer):
    loss = tune(images, optimizer=optimizer, lr=1e-2 if optimizer == "sgd" else 1e-3, epochs=3).report["history"][
        "loss"
    ]

    assert loss[-1] < loss[0]


# How the head starts


@pytest.mark.parametrize("layers", ["", "8 relu drop.3", "bn 8 relu"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_head_starts_as_the_one_fitted_on_features(layers, n_classes):
    rng = np.random.default_rng(0)
    y = np.arange(90) % n_classes
    X = (rng.normal(size=(90, 6)) * [1, 2, 3, 4, 5, 6] + y[:, None]).astype(np.float32)
    table = featx.Features.from_arrays(X, y)
    fitted = fit_on_features(table, layers, val=None, seed=0)
    head = unfitted_head(layers, 0)
    head.classes_, head.row_shape_, head.n_features_in_ = np.arange(n_classes), (6,), 6
    network = head.network_module(fitted=False).eval()

    state = starting_weights(fitted, head)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)

    expected = fitted.head.predict_proba(fitted.scaler.transform(X))
    with torch.no_grad():
        found = network(torch.from_numpy(X)).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_fine_tuning_starts_from_a_head_fitted_on_the_cache(photos, tmp_path):
    how = {"image_size": 32, "workers": 0, "cache": tmp_path / "cache", "lr": 1e-9, "epochs": 1}
    fitted = featx.fit(
        featx.extract(photos, image_size=32, workers=0, cache=tmp_path / "cache"), "logreg", scale="standard"
    )
    fitted.save(tmp_path / "head.featx")
    by_itself = featx.finetune(photos, **how, unfreeze=1)
    by_file = featx.finetune(photos, **how, unfreeze=1, init_head=tmp_path / "head.featx")
    afresh = featx.finetune(photos, **how, unfreeze=1, init_head="none")

    weights = fitted.head.coef_ / fitted.scaler.scale_
    np.testing.assert_allclose(by_itself.head.state_["0.weight"], weights, atol=1e-5)
    np.testing.assert_allclose(by_file.head.state_["0.weight"], weights, atol=1e-5)
    assert np.abs(afresh.head.state_["0.weight"] - weights).max() > 0.01
    assert by_itself.report["kind"] == "finetune"
    with pytest.raises(OptionError, match="--init-head auto"):
        featx.finetune(photos, **how | {"image_size": 40}, init_head=tmp_path / "head.featx")


# Killed and resumed

SCRIPT = """
import sys, numpy as np, featx
data = np.load(sys.argv[1])
def on_progress(progress):
    if progress.step.startswith("epoch"):
        print(progress.step, progress.done, flush=True)
featx.finetune(data["pixels"], labels=data["labels"].tolist(), checkpoint=sys.argv[2], checkpoint_minutes=0, on_progress=on_progress,
               **eval(sys.argv[3]))
"""


def test_a_run_killed_in_an_epoch_ends_with_the_same_weights(images, tmp_path, start):
    how = QUICK | {
        "backbone": "scratch/leaky-dropout",
        "augment": "flip",
        "epochs": 3,
        "batch_size": 4,
        "optimizer": "adam",
    }
    np.savez(tmp_path / "images.npz", pixels=images[0], labels=images[1])
    checkpoint = tmp_path / "m.checkpoint"
    child = start([sys.executable, "-c", SCRIPT, str(tmp_path / "images.npz"), str(checkpoint), repr(how)])
    for line in child.stdout:
        if line.split()[1] == "2/3" and int(line.split()[2]) > 54:  # in the middle of the second of three
            os.kill(child.pid, signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL

    resumed_steps = []
    resumed = featx.finetune(
        images[0], labels=images[1], **how, checkpoint=checkpoint, resume=True,
        on_progress=lambda progress: resumed_steps.append(progress.step),
    )  # fmt: skip

    whole = featx.finetune(images[0], labels=images[1], **how)
    assert_same_weights(resumed, whole)
    assert resumed.report["history"] == whole.report["history"]
    assert resumed.report["iterations"] == whole.report["iterations"]
    assert 9 < sum(step.startswith("epoch") for step in resumed_steps) < 18


@pytest.mark.parametrize("optimizer", ["sgd", "adamax", "adamw"])
def test_a_run_stopped_between_epochs_ends_with_the_same_weights(images, tmp_path, optimizer):
    how = {"backbone": "scratch/cnn25", "image_size": 32, "epochs": 3, "optimizer": optimizer, "schedule": "plateau"}
    steps = []

    def stop(progress):
        steps.append(progress)
        if progress.step == "epoch 2/3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(images, **how, checkpoint=tmp_path / "c", on_progress=stop)

    assert_same_weights(tune(images, **how, checkpoint=tmp_path / "c", resume=True), tune(images, **how))


def test_another_command_does_not_go_on_from_a_checkpoint(images, tmp_path):
    tune(images, checkpoint=tmp_path / "c")

    with pytest.raises(OptionError, match=r"--lr 0.001, this one has 0.002"):
        tune(images, checkpoint=tmp_path / "c", resume=True, lr=2e-3)
    with pytest.raises(OptionError, match="Go on from it with --resume"):
        tune(images, checkpoint=tmp_path / "c")
    pixels, labels = images
    with pytest.raises(OptionError, match="with the data"):
        tune((pixels[::-1].copy(), labels[::-1]), checkpoint=tmp_path / "c", resume=True)
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:1000])
    with pytest.raises(featx.FeatxError, match="not a checkpoint that this featx reads"):
        tune(images, checkpoint=tmp_path / "c", resume=True)


# Where it computes


def test_harness_refuses_what_a_gpu_refuses():
    with pretended_gpu.pretended(2):
        on_gpu = torch.ones(3, device="cuda:1")
        with pytest.raises(RuntimeError, match="same device"):
            on_gpu + torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            on_gpu + torch.ones(3, device="cuda:0")
        with pytest.raises(TypeError, match="numpy"):
            on_gpu.numpy()
        assert (on_gpu * 2).device == torch.device("cuda:1")


@pytest.mark.parametrize(
    "how",
    [
        {"head_layers": ""},
        {"backbone": "scratch/leaky-deep", "head_layers": "8 relu", "from_cache": True, "unfreeze": 1},
        {"head_layers": "conv4 relu gap"},
    ],
    ids=["logistic start", "dense start, from the cache", "convolutional start"],
)
def test_all_of_it_is_computed_on_the_device_that_was_asked_for(images, tmp_path, how, monkeypatch):
    """Features, the head that it starts from, every step, the scores and the model's probe; nothing on the first GPU."""
    monkeypatch.setattr("featx.heads.networks.AUTO_UPDATES", 8)  # of the head that is fitted first
    monkeypatch.setattr("featx.devices.WORTH_A_GPU", 0)  # left to itself, it would be fitted on the first GPU
    how = {"image_size": 16, "epochs": 1, **how}
    torch.save(initial_state(**how), tmp_path / "own.pth")
    how["weights"] = str(tmp_path / "own.pth")  # random weights would start from a random head
    with pretended_gpu.pretended(2) as used:
        on_gpu = tune(images, device="cuda:1", cache=tmp_path / "gpu", **how)

    assert used[1] > 100
    assert not used[0]
    assert not used["products in whatever precision"]
    on_cpu = tune(images, device="cpu", cache=tmp_path / "cpu", **how)
    np.testing.assert_allclose(on_gpu.report["history"]["loss"], on_cpu.report["history"]["loss"], rtol=1e-4)
    for name, array in on_gpu.probe.items():
        np.testing.assert_allclose(array, on_cpu.probe[name], rtol=1e-3, atol=1e-4)


def test_final_scores_are_what_the_model_computes_whatever_the_process_has_set(images):
    plain = tune(images, precision="bf16").report["train"]
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        model = tune(images, precision="bf16")
    finally:
        torch.set_float32_matmul_precision(products)
    pixels, labels = images
    taught = [i for i in range(48) if hash_of(model.trained_on, pixels[i])]
    right = model.predict(pixels[taught], workers=0) == np.array(labels)[taught]

    assert model.report["train"] == plain
    assert model.report["train"]["accuracy"] == right.mean()


# What cannot be


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": "imagenet"}, WeightsUnavailable, "Type --weights none"),
        ({"unfreeze": "features.99"}, UnknownLayerError, "featx layers"),
        ({"unfreeze": 2}, OptionError, "1 to 1 blocks"),
        ({"backbone": "scratch/cnn25", "image_size": 16}, ImageSizeError, "at least 32×32"),
        ({"val": 0, "early_stop": 2}, OptionError, "Give --val 0.1"),
        ({"optimizer": "adagrad"}, OptionError, "sgd"),
        ({"epochs": 0}, OptionError, "--epochs"),
        ({"warmup": 2}, OptionError, "leaves none of 2 epochs"),
        ({"lr": 1e9, "optimizer": "sgd"}, OptionError, "Lower lr"),
        ({"augment": "flop"}, ValueError, "flip"),
        ({"resume": True}, OptionError, "checkpoint=PATH"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(images, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        tune(images, **changes)

    assert "\n" not in str(caught.value)


def test_data_without_two_labelled_classes_are_refused(images):
    pixels, _ = images
    with pytest.raises(DataError, match="--label-column"):
        featx.finetune(pixels, **QUICK | {"val": None})
    with pytest.raises(DataError, match="at least two classes"):
        featx.finetune(pixels, labels=["cat"] * 48, **QUICK)


def test_images_that_cannot_be_read_cost_themselves(photos):
    (photos / "red" / "bad.jpg").write_text("no image")
    how = QUICK | {"image_size": 32, "epochs": 1}

    assert featx.finetune(photos, **how, max_errors="1").report["errors"] == 1
    with pytest.raises(TooManyErrors, match="bad.jpg: not an image"):
        featx.finetune(photos, **how)


def test_pixels_beyond_memory_go_to_a_file_that_leaves_nothing(images, tmp_path, monkeypatch):
    in_memory = tune(images)
    monkeypatch.setattr("featx.finetuning.sources.MEMORY_BYTES", 1000)

    assert_same_weights(tune(images, cache=tmp_path / "cache"), in_memory)
    assert list((tmp_path / "cache").iterdir()) == []


# The command


def test_the_command_trains_saves_and_predicts(photos, tmp_path):
    def run(*words):
        done = CliRunner().invoke(cli, [*map(str, words), "--json", "-q", "--cache", str(tmp_path / "cache")])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    output = tmp_path / "m.featx"
    words = [
        "--backbone",
        "scratch/leaky",
        "--weights",
        "none",
        "--image-size",
        "16",
        "--epochs",
        "2",
        "--lr",
        "0.001",
        "--workers",
        "0",
    ]
    report = run("finetune", photos, *words, "-o", output)

    assert report["model"] == str(output)
    assert not list(tmp_path.glob("*.checkpoint"))
    predicted = run("predict", output, photos, "--workers", 0)
    assert len(predicted["predictions"]) == 12
    assert run("evaluate", output, photos, "--workers", 0)["n"] == report["val"]["n"]


def test_a_network_that_cannot_take_no_images_is_never_given_none(images, monkeypatch):
    forward = torch.nn.Conv2d.forward

    def picky(self, x):
        assert len(x), "no images"
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", picky)
    assert tune(images).report["test"] is None


def test_early_stopping_without_validation_rows_follows_the_loss_of_training(images):
    trained = tune(images, val=0, monitor="loss", early_stop=1, min_delta=10.0, epochs=6)

    assert len(trained.report["history"]["loss"]) == 2
