"""featx against the library's own eval() forward with a plain hook: max|Δ| ≤ 1e-5 of the largest value (tier B)."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torchvision import models

from featx import backbones
from featx.engines import open_engine
from featx.recipe import Request

TOLERANCE = 1e-5
#: The VGGs' first fully connected layer takes a second to draw, and no layer here is behind it.
MOST_WEIGHTS = 100_000_000


def undrawn(make):
    """Make a network without its library's random draws: the test draws its own."""
    with backbones.weights.uninitialised():
        return make()


def photos(n, size, seed=0):
    """Smooth random colour fields: unlike noise, they still differ after a network's averaging."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    images = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return (images * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def normalised(images, mean, std):
    """What torchvision's ToTensor and Normalize make of the images."""
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    return (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def with_sensible_statistics(module, size):
    """Draw weights that keep the signal's size, then let batch norm see some images.

    Untouched, a random network maps every image to almost the same vector, and parity would mean nothing. With unit
    gains it is chaotic instead: rounding grows a thousandfold on its way, and the library differs from itself by
    4e-5 between batch sizes. Small gains and positive biases make it as calm as a trained one.
    """
    torch.manual_seed(1)
    for child in module.modules():
        if isinstance(child, nn.Conv2d | nn.Linear) and child.weight.numel() < MOST_WEIGHTS:
            nn.init.kaiming_normal_(child.weight, mode="fan_in", nonlinearity="relu")
            if child.bias is not None:
                nn.init.uniform_(child.bias, -0.1, 0.1)
        elif isinstance(child, nn.MultiheadAttention):
            nn.init.xavier_uniform_(child.in_proj_weight)
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.15, 0.3)
        nn.init.uniform_(norm.bias, 0, 1)
    with torch.no_grad():
        module(normalised(photos(4, size, seed=9), (0.5,) * 3, (0.25,) * 3))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return module.eval()


def hooked(module, layer, inputs):
    """The library's own forward, and what `layer` gave in it, as it was the moment it returned."""
    outputs = []
    handle = module.get_submodule(layer).register_forward_hook(lambda *args: outputs.append(args[2].clone()))
    with torch.no_grad():
        module(inputs)
    handle.remove()
    return outputs[-1]


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_features_differ(rows):
    flat = rows.reshape(len(rows), -1)
    for i in range(1, len(flat)):
        assert np.abs(flat[i] - flat[0]).max() > 0.02 * np.abs(flat).max()


# backbone, builder, layer and pool as typed, image size, hook, what to make of its output, d, batch sizes
CASES = {
    "alexnet fc7": (
        "alexnet", models.alexnet, "fc7", "auto", None, "classifier.4", lambda y: y, 4096, (1, 7, 32),
    ),
    "vgg16 block3_pool": (
        "vgg16", models.vgg16, "block3_pool", "flatten", 32, "features.16", lambda y: y.flatten(1), 4096, (1, 7, 32),
    ),
    "vgg19 block5_pool": (
        "vgg19", models.vgg19, "block5_pool", "auto", 32, "features.36", lambda y: y.mean((2, 3)), 512, (1, 7, 32),
    ),
    "resnet50 global max": (
        "resnet50", models.resnet50, "layer4", "max", 96, "layer4", lambda y: y.amax((2, 3)), 2048, (1, 7),
    ),
    "inception_v3": (
        "inception_v3", lambda: models.inception_v3(init_weights=False), None, "auto", None,
        "avgpool", lambda y: y.flatten(1), 2048, (1, 7),
    ),
    "inception_resnet_v2": (
        "timm/inception_resnet_v2", lambda: timm.create_model("inception_resnet_v2"), None, "auto", 139,
        "global_pool", lambda y: y, 1536, (1, 7),
    ),
    "resnet50v2 max_pool": (
        "resnet50v2", lambda: timm.create_model("resnetv2_50"), "max_pool", "auto", 96,
        "norm", lambda y: y.amax((2, 3)), 2048, (1, 7),
    ),
    "vit_b_32 class token": (
        "vit_b_32", models.vit_b_32, None, "auto", None, "encoder", lambda y: y[:, 0], 768, (1, 7),
    ),
    "vit_tiny class token": (
        "timm/vit_tiny_patch16_224", lambda: timm.create_model("vit_tiny_patch16_224"), None, "auto", None,
        "norm", lambda y: y[:, 0], 192, (1, 7, 32),
    ),
    "densenet121 after its last ReLU": (
        "densenet121", models.densenet121, None, "auto", 64, "features", lambda y: y.relu().mean((2, 3)), 1024, (7, 32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_librarys_own_forward(case):
    name, build, layer, pool, size, tapped, expected_of, d, batch_sizes = CASES[case]
    module = with_sensible_statistics(undrawn(build), size or 224)
    request = Request(backbone=name, weights="none", layers=(layer,) if layer else (), pool=pool, image_size=size)
    backbone, recipes = undrawn(lambda: backbones.resolve(request))
    backbone.module.load_state_dict(module.state_dict())
    images = photos(max(batch_sizes), backbone.frame.height)
    expected = expected_of(hooked(module, tapped, normalised(images, backbone.mean, backbone.std))).numpy()

    assert recipes[0].shape == (d,)
    assert_features_differ(expected)
    for batch_size in batch_sizes:
        n = batch_size if batch_size > 1 else 2  # a batch of one, twice
        engine = open_engine(backbone, recipes, engine="eager", device="cpu", batch_size=batch_size)
        assert relative(engine.run(images[:n])[0], expected[:n]) <= TOLERANCE


def test_weights_from_a_file_give_the_same_features(tmp_path):
    module = with_sensible_statistics(undrawn(models.resnet18), 64)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    backbone, recipes = backbones.resolve(
        Request(backbone="resnet18", weights=str(tmp_path / "weights.safetensors"), image_size=64)
    )
    images = photos(7, 64)
    expected = hooked(module, "avgpool", normalised(images, backbone.mean, backbone.std)).flatten(1).numpy()

    assert relative(open_engine(backbone, recipes, engine="eager", device="cpu").run(images)[0], expected) <= TOLERANCE


def test_efficientnet_lite0_has_its_true_weights():
    backbone, recipes = backbones.resolve(Request(backbone="efficientnet_lite0"))
    state = torch.load(backbone.files[0], weights_only=True)
    module = timm.create_model("tf_efficientnet_lite0").eval()
    module.load_state_dict(dict(zip(module.state_dict(), state.values(), strict=True)))
    images = photos(32, 224)
    features = hooked(module, "global_pool", normalised(images, (0.5,) * 3, (0.5,) * 3)).numpy()

    assert recipes[0].shape == (1280,)
    assert_features_differ(features)
    for batch_size in (1, 7, 32):
        engine = open_engine(backbone, recipes, engine="eager", device="cpu", batch_size=batch_size)
        assert relative(engine.run(images[:batch_size])[0], features[:batch_size]) <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        ("vgg11", 32, ("block1_conv1", "block1_pool", "features.0", "block3_pool", "block5_conv2")),
        ("resnet18", 64, ("conv1", "bn1", "layer1", "layer2.0.relu", "layer4", "fc")),
        ("timm/vit_tiny_patch16_224", None, ("blocks.0", "blocks.5.attn", "norm")),
    ],
)
@pytest.mark.parametrize("pool", ["none", "flatten"])
def test_several_layers_in_one_pass_equal_one_pass_each(name, size, layers, pool):
    request = Request(backbone=name, weights="none", layers=layers, pool=pool, image_size=size)
    backbone, recipes = undrawn(lambda: backbones.resolve(request))
    with_sensible_statistics(backbone.module, backbone.frame.height)
    images = photos(3, backbone.frame.height)
    together = open_engine(backbone, recipes, engine="eager", device="cpu", batch_size=3).run(images)

    for recipe, rows in zip(recipes, together, strict=True):
        (alone,) = open_engine(backbone, [recipe], engine="eager", device="cpu", batch_size=3).run(images)
        assert rows.shape == (3, *recipe.shape)
        assert relative(rows, alone) <= TOLERANCE


def test_a_tap_before_an_in_place_relu_keeps_its_negative_values():
    backbone, recipes = backbones.resolve(
        Request(backbone="vgg11", weights="none", layers=("features.0", "block1_conv1"), pool="none", image_size=32)
    )
    images = photos(2, 32)
    before, after = open_engine(backbone, recipes, engine="eager", device="cpu").run(images)
    expected = hooked(backbone.module, "features.0", normalised(images, backbone.mean, backbone.std)).numpy()

    assert (before < 0).any()
    assert relative(before, expected) <= TOLERANCE
    assert np.array_equal(after, np.maximum(before, 0))


def test_of_a_module_that_runs_several_times_the_last_call_counts():
    backbone, recipes = backbones.resolve(
        Request(backbone="resnet18", weights="none", layers=("layer1.0.relu",), pool="none", image_size=64)
    )
    with_sensible_statistics(backbone.module, 64)
    images = photos(2, 64)
    (rows,) = open_engine(backbone, recipes, engine="eager", device="cpu").run(images)
    inputs = normalised(images, backbone.mean, backbone.std)

    assert relative(rows, hooked(backbone.module, "layer1.0", inputs).numpy()) <= TOLERANCE
