"""Networks of one's own: modules, functions and their transforms are taken; what featx cannot know is asked for."""

import multiprocessing
import os

import numpy as np
import pytest
import timm
import torch
from sklearn.base import clone
from torch import nn
from torchvision import models, transforms
from torchvision.transforms import v2

import featx
from featx import FeatureExtractor
from featx.backbones import hand_over, own
from featx.engines import engine as engine_module
from featx.errors import ForkError, OptionError, UnknownBackboneError, WeightsError
from featx.recipe import Request


class Net(nn.Module):
    def __init__(self, width=4, slope=0.1):
        super().__init__()
        self.slope = slope
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, x):
        return nn.functional.leaky_relu(self.conv(x), self.slope)


SMALL = {"height": 16, "resize": "squash"}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def net(seed=0, **options):
    torch.manual_seed(seed)
    return Net(**options)


def extract(network, tmp_path, **options):
    options = {"transform": SMALL, "workers": 0, "engine": "eager"} | options
    return featx.extract(IMAGES, backbone=network, cache=tmp_path, **options)


def test_a_module_is_extracted_and_found_again_while_its_weights_and_code_are_the_same(tmp_path):
    found = extract(net(), tmp_path)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    with torch.no_grad():
        expected = net()(((torch.from_numpy(IMAGES) / 255 - mean) / std).permute(0, 3, 1, 2)).mean((2, 3))

    np.testing.assert_allclose(found.X, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert extract(net(), tmp_path).key == found.key
    assert extract(net, tmp_path).key == found.key
    others = [extract(net(1), tmp_path), extract(net(slope=0.2), tmp_path), extract(net(), tmp_path, version="1")]
    assert len({found.key, *(other.key for other in others)}) == 4


def test_training_a_network_afterwards_changes_no_features(tmp_path):
    network = net().train()
    before = np.array(extract(network, tmp_path / "a", version="1").X)
    name = f"{own.HANDED_OVER}Net@1"
    with torch.no_grad():
        network.conv.weight.zero_()

    assert network.training
    assert pytest.approx(before) == featx.extract(IMAGES, backbone=name, version="1", cache=tmp_path / "b", workers=0).X
    assert pytest.approx(before) != extract(network, tmp_path / "a", version="1").X


def test_an_extractor_takes_a_module_and_can_be_cloned(tmp_path):
    extractor = FeatureExtractor(net(), image_transform=SMALL, cache=tmp_path, workers=0, engine="eager")

    assert np.array_equal(extractor.fit_transform(IMAGES), clone(extractor).fit_transform(IMAGES))


def with_function(network):
    network.act = torch.relu
    return network


def with_hook(network):
    network.register_forward_hook(lambda *_: None)
    return network


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Net, r"is a class. Hand over a network: Net\(…\)"),
        (7, "backbone must be a name from featx backbones, a torch.nn.Module, or a function.*got int"),
        (lambda: 7, "got int"),
        (lambda images: images, "takes no arguments and returns a torch.nn.Module"),
        (with_function(Net()), r"attribute 'act' of Net does cannot be read.*version=\"1\""),
        (with_hook(Net()), r"a hook of Net does cannot be read.*version=\"1\""),
    ],
    ids=["class", "number", "function", "forward", "attribute", "hook"],
)
def test_what_cannot_be_taken_says_what_to_type(network, message, tmp_path):
    with pytest.raises(OptionError, match=message):
        extract(network, tmp_path)
    with pytest.raises(OptionError, match=message):
        FeatureExtractor(network, image_transform=SMALL, cache=tmp_path).fit(IMAGES)


def test_a_model_on_a_module_is_loaded_and_asks_for_the_module_where_it_is_not_at_hand(tmp_path, monkeypatch):
    table = extract(net(), tmp_path, labels=[0, 1, 0, 1, 0])
    path = featx.fit(table, "ridge", val=0).save(tmp_path / "m.featx")
    how = {"workers": 0, "engine": "eager"}

    assert featx.load(path).predict(IMAGES, **how).shape == (5,)
    monkeypatch.setattr(own, "_HELD", {})
    with pytest.raises(UnknownBackboneError, match="Hand it over again"):
        featx.load(path).predict(IMAGES, **how)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_program_gets_a_plain_sentence(tmp_path):
    program = torch.jit.script(Net())
    program.save(tmp_path / "net.pt")

    with pytest.raises(
        OptionError, match=r"TorchScript program shows none of its layers\. Hand over the torch\.nn\.Module"
    ):
        extract(program, tmp_path)
    with pytest.raises(WeightsError, match=r"is a TorchScript program, which code is never loaded|TorchScript"):
        featx.backbones.load(Request(backbone="resnet18", weights=str(tmp_path / "net.pt")))


def test_with_a_version_no_code_is_read(tmp_path):
    assert extract(with_function(Net()), tmp_path, version="1").recipe.version == "1"


def test_a_name_of_another_program_is_refused():
    with pytest.raises(UnknownBackboneError, match=r"handed over by a Python program.*package\.module:function"):
        featx.backbones.load(Request(backbone="python:Gone@1", version="1"))


def test_a_transform_for_a_registered_network_is_refused(tmp_path):
    with pytest.raises(OptionError, match="transform= is for a network of your own"):
        extract("resnet18", tmp_path)


# transforms


@pytest.mark.parametrize(
    "transform",
    [
        models.ResNet50_Weights.IMAGENET1K_V2.transforms(),
        transforms.Compose(
            [
                transforms.Resize(232),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        ),
        v2.Compose(
            [
                v2.Resize([232]),
                v2.CenterCrop(224),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        ),
        timm.data.create_transform(224, crop_pct=224 / 232, interpolation="bilinear"),
    ],
    ids=["preset", "compose", "v2", "timm"],
)
def test_transforms_of_the_libraries_are_read(transform):
    name, _ = hand_over(net(), transform, "1")
    own_frame = own.load(name, "imagenet", 0).preprocessing
    frame = own_frame.frame

    assert (frame.height, frame.width, frame.shorter, frame.resize) == (224, 224, 232, "crop")
    assert frame.interpolation == "bilinear"
    assert own_frame.mean == pytest.approx((0.485, 0.456, 0.406))
    assert own_frame.std == pytest.approx((0.229, 0.224, 0.225))


def test_a_squashing_resize_without_normalisation_is_read():
    found = own.read_transform(transforms.Compose([transforms.Resize((32, 48)), transforms.ToTensor()]))

    assert (found["height"], found["width"], found["resize"]) == (32, 48, "squash")
    assert (found["mean"], found["std"]) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ([transforms.RandomCrop(8)], "RandomCrop"),
        ([transforms.Resize(8), transforms.ToTensor()], "Resize without CenterCrop"),
        ([transforms.CenterCrop(8), transforms.ToTensor()], "no Resize"),
        ([transforms.Resize((9, 9)), transforms.CenterCrop(8)], r"a crop after Resize\(\(h, w\)\)"),
        ([transforms.Lambda(abs)], "Lambda"),
    ],
)
def test_other_transforms_are_refused(steps, what):
    with pytest.raises(OptionError, match=rf"the transform has .*{what}\. Hand over a dictionary"):
        hand_over(net(), transforms.Compose(steps), "1")


# forks


def _in_child(engine, answers):
    try:
        engine.run(IMAGES)
        answers.put("ran")
    except ForkError as error:
        answers.put(str(error))


def test_a_process_forked_after_a_forward_is_told_to_spawn(tmp_path, monkeypatch):
    name, version = hand_over(net(), SMALL, "1")
    backbone, recipes = featx.backbones.resolve(Request(backbone=name, version=version))
    engine = featx.engines.open_engine(backbone, recipes, engine="eager", device="cpu")
    engine.run(IMAGES)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_in_child, args=(engine, answers))
    child.start()

    assert "get_context('spawn') or joblib's default backend, loky" in answers.get(timeout=60)
    child.join(60)
    engine.run(IMAGES)
    assert engine_module._Forks.after_forward is False
    assert os.getpid() == engine._pid
