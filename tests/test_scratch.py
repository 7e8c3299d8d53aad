"""Networks that walkthroughs train from scratch: their layers, counts and weights."""

import json

import pytest
import torch
from click.testing import CliRunner

from featx.backbones import list_backbones, load, resolve, scratch
from featx.cli import cli
from featx.errors import UnknownBackboneError, WeightsUnavailable
from featx.heads.layers import build_network, parse_layers, trace
from featx.recipe import Request


def request(name, **changes):
    return Request(**({"backbone": f"scratch/{name}", "weights": "none"} | changes))


def head_of(name, shape):
    return build_network(trace(parse_layers(scratch.head_layers(name)), shape, 10))


@pytest.mark.parametrize(
    ("name", "shape", "n_parameters"),
    [
        ("leaky", (8192,), 2_105_066),
        ("leaky-dropout", (8192,), 2_105_066),
        ("leaky-deep", (4096,), 1_084_234),
        ("cnn25", (2304,), 416_650),
    ],
)
def test_counts_of_parameters_are_those_published(name, shape, n_parameters):
    backbone, (recipe,) = resolve(request(name))
    head = head_of(f"scratch/{name}", recipe.shape)

    assert recipe.shape == shape
    assert backbone.n_parameters + sum(p.numel() for p in head.parameters()) == n_parameters


def test_cnn25_has_the_25_layers_that_matlab_counts():
    backbone, (recipe,) = resolve(request("cnn25"))
    counted = 1 + len(backbone.module.features) + 2 + 2  # input; dropout and dense; softmax and output
    kinds = [type(layer).__name__ for layer in head_of("scratch/cnn25", recipe.shape)]

    assert counted == 25
    assert kinds == ["Flatten", "Dropout", "Linear"]
    assert backbone.frame.height == 100


def test_weights_are_glorot_uniform_and_biases_zero():
    convolution = load(request("leaky-deep")).module.features[2]
    limit = (6 / ((16 + 32) * 9)) ** 0.5

    assert 0.98 * limit < convolution.weight.abs().max() <= limit
    assert not convolution.bias.any()


def test_the_seed_decides_the_weights():
    def weight(seed):
        return load(request("leaky", seed=seed)).module.features[0].weight

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_dropout_is_active_in_training_only():
    module = load(request("leaky-dropout")).module
    pixels = torch.rand(2, 3, 32, 32)

    assert torch.equal(module(pixels), module(pixels))
    module.train()
    assert not torch.equal(module(pixels), module(pixels))


def test_pretrained_weights_are_refused_with_what_to_type():
    with pytest.raises(WeightsUnavailable, match=r"no pretrained weights, got 'imagenet'\. Type --weights none"):
        load(request("leaky", weights="imagenet"))


def test_weights_come_back_from_a_file(tmp_path):
    module = load(request("leaky", seed=3)).module
    torch.save(module.state_dict(), tmp_path / "own.pth")

    again = load(request("leaky", weights=str(tmp_path / "own.pth")))

    assert again.weights_digest == load(request("leaky", seed=3)).weights_digest
    assert again.weights == "file"


def test_the_command_line_lists_them_and_their_layers():
    listed = [info.name for info in list_backbones("scratch/")]
    shown = CliRunner().invoke(cli, ["layers", "scratch/leaky", "--json"])

    assert listed == ["scratch/leaky", "scratch/leaky-dropout", "scratch/leaky-deep", "scratch/cnn25"]
    assert [layer["shape"] for layer in json.loads(shown.output)["layers"]][-1] == [32, 16, 16]
    with pytest.raises(UnknownBackboneError, match="Did you mean 'scratch/leaky'"):
        load(request("leakey"))
