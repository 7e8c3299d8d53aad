"""Engines of one precision give the same features (tier B), whatever the batch; what cannot be had is an error."""

import ctypes
import gc
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.passes import move_to_device_pass

from featx import backbones, engines
from featx.devices import arithmetic
from featx.engines import Engine, choose, kept, open_engine, openvino, pytorch
from featx.engines import engine as engine_module
from featx.engines.choose import gain_of_bf16, request_size
from featx.engines.pytorch import blank, export, fold_batch_norm, from_pixels
from featx.errors import OptionError
from featx.recipe import Request

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
needs_openvino = pytest.mark.skipif(not openvino.installed(), reason="openvino is not installed")


def resolved(backbone="timm/test_resnet", **options):
    options = {"weights": "none", "image_size": 64, "layers": ("conv1", "layer2", "layer4")} | options
    backbone, recipes = backbones.resolve(Request(backbone=backbone, **options))
    torch.manual_seed(0)
    for child in backbone.module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1)
            nn.init.uniform_(child.running_mean, -0.1, 0.1)
            nn.init.uniform_(child.running_var, 0.5, 1)
    return backbone, recipes


def images(n, size=64):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def distance(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def eager(backbone, recipes, **options):
    return open_engine(backbone, recipes, engine="eager", device="cpu", **options)


# batches


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 11])
def test_any_number_of_images_gives_that_many_rows(n):
    backbone, recipes = resolved()
    rows = eager(backbone, recipes, batch_size=4).run(images(n))

    assert [row.shape for row in rows] == [(n, *recipe.shape) for recipe in recipes]
    assert all(row.dtype == np.float32 for row in rows)


def test_the_last_batch_is_padded_so_that_a_resumed_run_is_bit_equal():
    """Tier A: the same place in a batch of the same shape, whatever stands beside it."""
    backbone, recipes = resolved()
    engine, pixels = eager(backbone, recipes, batch_size=4), images(7)
    whole, last = engine.run(pixels), engine.run(pixels[4:])

    for rows, resumed in zip(whole, last, strict=True):
        assert np.array_equal(rows[4:], resumed)


def test_few_images_take_no_more_requests_than_they_need():
    _, recipes = resolved()
    seen = []

    def compute(pixels):
        seen.append(len(pixels))
        return [np.zeros((len(pixels), *recipe.shape), np.float32) for recipe in recipes]

    engine = Engine(compute, recipes, name="openvino", batch_size=32, request_size=4, why="")

    assert [len(engine.run(images(n))[0]) for n in (1, 5, 33)] == [1, 5, 33]
    assert seen == [4] * (1 + 2 + 9)


class Turnstile:
    """A computation that lets one request through at a time, when it is told to."""

    def __init__(self, shape):
        self.began, self.shape, self.tickets = [], shape, threading.Semaphore(0)

    def __call__(self, pixels):
        self.began.append(int(pixels[0, 0, 0, 0]))
        assert self.tickets.acquire(timeout=60)
        if pixels[0, 0, 0, 0] == 99:
            raise RuntimeError("no memory")
        return [np.full((len(pixels), *self.shape), pixels[0, 0, 0, 0], np.float32)]


def numbered(*levels):
    """One image of each level."""
    return np.stack([np.full((32, 32, 3), level, np.uint8) for level in levels])


@pytest.fixture
def turnstile():
    _, recipes = resolved(image_size=32)
    gate = Turnstile(recipes[0].shape)
    engine = Engine(gate, recipes[:1], name="openvino", batch_size=2, request_size=1, n_at_once=1, why="")
    yield gate, engine
    gate.tickets.release(100)


def test_a_batch_that_is_started_runs_while_its_caller_goes_on(turnstile):
    gate, engine = turnstile
    first, second = engine.start(numbered(1, 2)), engine.start(numbered(3))
    assert (first.ended(), second.ended()) == (math.inf, math.inf)
    before = time.perf_counter()
    gate.tickets.release(2)
    rows = first.result()

    assert rows[0][:, 0].tolist() == [1, 2]
    assert before < first.ended() < time.perf_counter()
    assert second.ended() == math.inf
    gate.tickets.release()
    assert second.result()[0][:, 0].tolist() == [3]
    assert gate.began == [1, 2, 3]


def test_a_batch_that_fails_raises_where_its_rows_are_asked_for(turnstile):
    gate, engine = turnstile
    gate.tickets.release(3)
    failing, sound = engine.start(numbered(1, 99)), engine.start(numbered(2))

    with pytest.raises(RuntimeError, match="no memory"):
        failing.result()
    assert sound.result()[0][:, 0].tolist() == [2]


def test_of_a_cancelled_batch_only_what_has_begun_is_done(turnstile):
    gate, engine = turnstile
    running = engine.start(numbered(1, 2))
    while not gate.began:
        time.sleep(0.001)
    running.cancel()
    gate.tickets.release(3)

    assert engine.run(numbered(3))[0][:, 0].tolist() == [3]
    assert gate.began == [1, 3]


def test_whoever_waits_for_a_stalled_batch_is_told_which_thread_is_at_what(turnstile, monkeypatch, caplog):
    gate, engine = turnstile
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(engine_module, "_TICK", 0.02)
    caplog.set_level("DEBUG", "featx")
    engine.start(numbered(1))
    stalled = engine.start(numbered(2, 3))
    release = threading.Timer(0.6, gate.tickets.release, [3])
    release.start()

    assert stalled.result()[0][:, 0].tolist() == [2, 3]
    release.join()
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert 1 <= len(warned) <= 20
    assert "The openvino engine has finished nothing for" in warned[0]
    assert re.search(r"thread featx-engine_0 is at images 1 to 1 of batch 1\.", warned[0])
    assert any("in __call__" in record.getMessage() for record in caplog.records if record.levelname == "DEBUG")


def test_slow_work_that_gets_on_is_not_taken_for_a_stall(turnstile, monkeypatch, caplog):
    gate, engine = turnstile
    monkeypatch.setattr(engine_module, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(engine_module, "_TICK", 0.02)
    running = engine.start(numbered(*range(1, 9)))
    timers = [threading.Timer(0.15 * i, gate.tickets.release) for i in range(1, 9)]
    for timer in timers:
        timer.start()

    assert len(running.result()[0]) == 8
    assert not caplog.records


def test_ctrl_c_is_heard_while_a_batch_is_waited_for(turnstile):
    _, engine = turnstile
    running = engine.start(numbered(1))
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt):
        running.result()


@needs_openvino
def test_a_network_answers_first_in_the_thread_that_opens_it(tmp_path, monkeypatch):
    """Two threads of a pool that are OpenVINO's first callers can wait for each other for ever."""
    import openvino as binding

    infer, threads = binding.InferRequest.infer, []

    def watched(*arguments, **options):
        threads.append(threading.current_thread())
        return infer(*arguments, **options)

    backbone, recipes = resolved()
    open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path)
    monkeypatch.setattr(binding.InferRequest, "infer", watched)
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path)

    assert threads == [threading.current_thread()]
    engine.run(images(8))
    assert all(thread.name.startswith("featx-engine") for thread in threads[1:])


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="the structure is that of Linux")
def test_networks_that_come_and_go_leave_the_stack_for_signals_as_it_was(tmp_path):
    """OpenVINO unmaps a stack that the thread which opened a network still has: Ctrl-C was then a crash."""

    class Stack(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

    def stack():
        found = Stack()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
        return found.base, found.flags, found.size

    before = stack()
    first = open_engine(*resolved(), engine="openvino", batch_size=4, networks=tmp_path)
    second = open_engine(*resolved(), engine="openvino", batch_size=4, networks=tmp_path)

    assert stack() == before
    del first
    del second
    assert stack() == before


@needs_openvino
def test_networks_are_opened_by_one_thread_at_a_time(tmp_path, monkeypatch):
    inside, most = [], []
    whole = openvino._build

    def watched(*arguments):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.05)
        network = whole(*arguments)
        inside.pop()
        return network

    monkeypatch.setattr(openvino, "_build", watched)
    backbone, recipes = resolved()
    with ThreadPoolExecutor(3) as pool:
        opened = [pool.submit(openvino.build, backbone, recipes, 4, tmp_path) for _ in range(3)]

    assert len([future.result() for future in opened]) == 3
    assert most == [1, 1, 1]


@needs_openvino
@pytest.mark.parametrize("batch_size", [1, 3])
def test_openvino_takes_batches_smaller_than_what_it_is_checked_on(batch_size, tmp_path):
    backbone, recipes = resolved()
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=batch_size, networks=tmp_path)
    expected = eager(backbone, recipes, batch_size=4).run(images(4))

    for rows, wanted in zip(engine.run(images(4)), expected, strict=True):
        assert distance(rows, wanted) <= 1e-5


def test_a_batch_that_does_not_fit_the_gpu_is_halved_once_its_memory_is_let_go(monkeypatch):
    backbone, recipes = resolved()
    job = choose._Job(backbone, recipes, ["cuda"], None, None, padded=True)
    held, tried = [], []

    def asked_for(job, engine):
        size = job.size

        def compute(pixels):
            assert all(tensor() is None for tensor in held)
            tensor = torch.zeros(size)
            held.append(weakref.ref(tensor))
            tried.append(size)
            if size > 500:
                raise torch.cuda.OutOfMemoryError
            return [np.zeros((len(pixels), *recipe.shape), np.float32) for recipe in recipes]

        return Engine(compute, recipes, name="eager", batch_size=size, n_at_once=1, why="")

    monkeypatch.setattr(choose, "_by_pytorch", asked_for)
    gc.disable()
    try:
        opened = choose._largest_that_fits(job, "eager")
    finally:
        gc.enable()

    assert tried == [2048, 1024, 512, 256]
    assert opened.batch_size == 256


@needs_openvino
def test_openvino_takes_turns_among_threads(tmp_path):
    engine = open_engine(*resolved(), engine="openvino", batch_size=8, networks=tmp_path)
    pixels = [images(40)[i : i + 8] for i in range(0, 40, 8)]
    expected = [engine.run(batch) for batch in pixels]
    running = [engine.start(batch) for batch in pixels]

    assert engine.n_at_once > 1 or os.cpu_count() == 1
    for found, wanted in zip(running, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(found.result(), wanted, strict=True))


@needs_openvino
def test_a_conversion_is_reported_to_nobody(tmp_path, monkeypatch):
    import openvino as converter
    from openvino_telemetry.main import OptInChecker

    convert, asked = converter.convert_model, []

    def watched(program):
        asked.append(OptInChecker().check(enable_opt_in_dialog=False, disable_in_ci=True).name)
        return convert(program)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(converter, "convert_model", watched)
    open_engine(*resolved(), engine="openvino", batch_size=4)

    assert asked == ["DECLINED"]
    assert "CI" not in os.environ
    assert not list(tmp_path.iterdir())


@needs_openvino
def test_openvino_gives_the_same_bits_whatever_comes_along(tmp_path):
    """Tier A: a last batch of three requests and a bit, against its place in a whole one."""
    backbone, recipes = resolved()
    engine, pixels = open_engine(backbone, recipes, engine="openvino", networks=tmp_path), images(128)
    n = 3 * engine.request_size + 1

    assert n < engine.batch_size
    for rows, fewer in zip(engine.run(pixels), engine.run(pixels[:n]), strict=True):
        assert np.array_equal(rows[:n], fewer)


def test_the_batch_size_follows_from_the_size_of_the_images():
    backbone, recipes = resolved("efficientnet_lite0", image_size=None, layers=())
    small_backbone, small = resolved(image_size=32)

    assert eager(backbone, recipes).batch_size == 32
    assert eager(small_backbone, small).batch_size == 256


@pytest.mark.parametrize(
    "pixels",
    [images(2).astype(np.float32), images(2, 32), images(2)[..., :1], images(2)[0]],
    ids=["float", "size", "grey", "one"],
)
def test_only_uint8_images_of_the_frames_size_are_taken(pixels):
    backbone, recipes = resolved()

    with pytest.raises(ValueError, match=r"Engine.run takes uint8 \(n, 64, 64, 3\)"):
        eager(backbone, recipes).run(pixels)


# values


def test_normalisation_happens_inside():
    backbone, recipes = resolved(normalize="0.1,0.2,0.3/0.5,1,2", layers=("conv1",), pool="none")
    pixels = images(2)
    (rows,) = eager(backbone, recipes).run(pixels)
    inputs = (torch.from_numpy(pixels).float() / 255 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1, 2])
    with torch.no_grad():
        expected = backbone.module.conv1(inputs.permute(0, 3, 1, 2)).numpy()

    assert distance(rows, expected) <= 1e-6


def test_half_precision_storage_overflows_to_inf_without_a_warning():
    backbone, recipes = resolved(layers=("fc",), dtype="float16")
    nn.init.constant_(backbone.module.fc.bias, 1e6)
    (rows,) = eager(backbone, recipes).run(images(1))

    assert rows.dtype == np.float16
    assert np.isinf(rows).all()


def test_nan_comes_out_as_nan():
    backbone, recipes = resolved(layers=("layer4",))
    with torch.no_grad():
        backbone.module.layer4[0].conv1.weight[0] = float("nan")
    (rows,) = eager(backbone, recipes).run(images(1))

    assert np.isnan(rows).any()


def test_an_engine_leaves_the_backbone_as_it_was():
    backbone, recipes = resolved()
    digest = backbones.weights.digest(backbone.module)
    strides = [parameter.stride() for parameter in backbone.module.parameters()]
    eager(backbone, recipes).run(images(1))

    assert backbones.weights.digest(backbone.module) == digest
    assert [parameter.stride() for parameter in backbone.module.parameters()] == strides
    assert type(backbone.module.bn1) is nn.BatchNorm2d


def test_whatever_the_process_has_set_fp32_is_fp32():
    backbone, recipes = resolved()
    expected = eager(backbone, recipes).run(images(2))
    torch.set_float32_matmul_precision("medium")
    try:
        found = eager(backbone, recipes).run(images(2))

        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for rows, wanted in zip(found, expected, strict=True):
        assert np.array_equal(rows, wanted)


# folding


class Forked(nn.Module):
    """Reads its convolution's output twice, which no hook can see."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        maps = self.conv(x)
        return (self.norm(maps) + maps,)


class Chained(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return (self.norm(self.conv(x)),)


def calm(module):
    nn.init.uniform_(module.norm.running_mean, -1, 1)
    nn.init.uniform_(module.norm.running_var, 1, 2)
    return module.eval()


def test_batch_norm_after_a_convolution_is_folded_away():
    torch.manual_seed(0)
    module, x = calm(Chained()), torch.rand(2, 3, 8, 8)
    folded = fold_batch_norm(module, x)

    assert isinstance(folded.norm, nn.Identity)
    assert torch.allclose(folded(x)[0], module(x)[0], atol=1e-6)
    assert isinstance(module.norm, nn.BatchNorm2d)


def test_a_convolution_that_someone_else_reads_is_not_folded():
    torch.manual_seed(0)
    module, x = calm(Forked()), torch.rand(2, 3, 8, 8)
    folded = fold_batch_norm(module, x)

    assert isinstance(folded.norm, nn.BatchNorm2d)
    assert torch.equal(folded(x)[0], module(x)[0])


def test_a_tapped_convolution_keeps_its_own_output_and_the_rest_is_folded():
    backbone, recipes = resolved("resnet18", layers=("conv1", "bn1", "layer1"), pool="none")
    rows = eager(backbone, recipes).run(images(2))
    inputs = (torch.from_numpy(images(2)).float() / 255 - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    with torch.no_grad():
        conv = backbone.module.conv1(inputs.permute(0, 3, 1, 2))
        norm = backbone.module.bn1(conv)

    assert distance(rows[0], conv.numpy()) <= 1e-5
    assert distance(rows[1], norm.numpy()) <= 1e-5


def test_a_convolution_at_the_end_of_a_tapped_layer_is_kept_and_the_rest_is_folded():
    backbone, recipes = resolved(layers=("conv1", "layer2"))
    folded = fold_batch_norm(
        from_pixels(backbone, recipes), blank(recipes, 1), keep=frozenset(["network.module.conv1"])
    )

    assert isinstance(folded.network.module.bn1, nn.BatchNorm2d)
    assert isinstance(folded.network.module.layer2[0].bn1, nn.Identity)


# other engines


@needs_openvino
@pytest.mark.parametrize(("name", "size"), [("timm/test_resnet", 64), ("timm/test_efficientnet", 64)])
def test_openvino_agrees_with_eager(name, size, tmp_path):
    layers = ("conv1", "layer2", "layer4") if name == "timm/test_resnet" else ()
    backbone, recipes = resolved(name, layers=layers, image_size=size)
    pixels = images(5, recipes[0].frame.height)
    expected = eager(backbone, recipes, batch_size=4).run(pixels)
    found = open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path).run(pixels)

    for rows, wanted, recipe in zip(found, expected, recipes, strict=True):
        assert rows.shape == (5, *recipe.shape)
        assert distance(rows, wanted) <= 1e-5


@needs_openvino
@pytest.mark.parametrize("has_bf16", [True, False])
def test_whoever_asks_for_details_is_told_what_bf16_would_bring_here(has_bf16, tmp_path, monkeypatch):
    backbone, recipes = resolved(image_size=64)
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path)
    monkeypatch.setattr("featx.engines.openvino.supports", lambda precision: has_bf16 or precision == "fp32")

    gain = gain_of_bf16(engine, recipes, tmp_path)

    assert gain is None if not has_bf16 else 0.05 < gain < 20
    assert gain_of_bf16(eager(backbone, recipes, batch_size=4), recipes, tmp_path) is None


@needs_openvino
def test_a_network_that_cannot_be_traced_is_exported(monkeypatch):
    def gone(*_, **__):
        raise AttributeError("torch.jit is no more")

    backbone, recipes = resolved(layers=("conv1", "layer2"))
    expected = eager(backbone, recipes, batch_size=4).run(images(4))
    monkeypatch.setattr(torch.jit, "trace", gone)
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=4)

    for rows, wanted in zip(engine.run(images(4)), expected, strict=True):
        assert distance(rows, wanted) <= 1e-5


class Moody(nn.Module):
    """Looks at the numbers to choose its way, which a trace cannot follow."""

    def forward(self, x):
        return x if x.mean() > -0.25 else -x


@needs_openvino
@pytest.mark.parametrize("request_size", [1, 4])
def test_a_network_that_is_traced_wrongly_is_not_kept(tmp_path, request_size):
    """On noise it goes one way, on dark images the other; it cannot be exported either."""
    backbone, recipes = resolved(layers=("layer2",))
    backbone.module.conv1 = nn.Sequential(Moody(), backbone.module.conv1)
    with pytest.raises(OptionError, match="cannot convert"):
        openvino.build(backbone, recipes, request_size, tmp_path)

    assert not list(tmp_path.iterdir())


@needs_openvino
def test_a_limit_on_memory_is_named_before_openvino_waits_for_ever():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    backbone, recipes = resolved()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), hard))
    try:
        with pytest.raises(OptionError, match=r"Too little memory for openvino.*ulimit -v unlimited"):
            openvino.build(backbone, recipes, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@needs_openvino
def test_what_cannot_be_converted_is_said_in_a_line(monkeypatch):
    import openvino as converter

    def refuse(_):
        raise RuntimeError("no such operator: aten::twist\nand a page of graph")

    monkeypatch.setattr(converter, "convert_model", refuse)
    with pytest.raises(OptionError, match=r"cannot convert timm/test_resnet \(no such operator: aten::twist\)\."):
        open_engine(*resolved(), engine="openvino", batch_size=4)


@needs_openvino
def test_rows_of_several_requests_come_back_in_order():
    backbone, recipes = resolved(layers=("layer2",))
    pixels = np.random.default_rng(0).integers(0, 256, (33, 64, 64, 3), dtype=np.uint8)
    pixels[:, :, :, 0] = np.linspace(0, 255, 33).astype(np.uint8)[:, None, None]
    expected = eager(backbone, recipes, batch_size=33).run(pixels)[0]
    found = open_engine(backbone, recipes, engine="openvino", batch_size=33).run(pixels)[0]

    assert request_size(recipes, 33) == 11
    assert distance(found, expected) <= 1e-5
    assert distance(found, np.roll(expected, 11, axis=0)) > 1e-2


@needs_openvino
def test_a_converted_network_is_read_back_bit_equal_and_never_when_damaged(tmp_path):
    backbone, recipes = resolved()
    options = {"engine": "openvino", "batch_size": 4, "networks": tmp_path}
    first = open_engine(backbone, recipes, **options).run(images(4))
    (folder,) = tmp_path.iterdir()
    written = (folder / "network.xml").stat().st_mtime_ns
    again = open_engine(backbone, recipes, **options).run(images(4))

    assert (folder / "network.xml").stat().st_mtime_ns == written
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    weights = bytearray((folder / "network.bin").read_bytes())
    weights[len(weights) // 2] ^= 0x40
    (folder / "network.bin").write_bytes(weights)
    mended = open_engine(backbone, recipes, **options).run(images(4))
    assert all(np.array_equal(a, b) for a, b in zip(first, mended, strict=True))
    assert (folder / "network.bin").read_bytes() != weights
    assert json.loads((folder / "about.json").read_text())["sha256"].keys() == {"network.xml", "network.bin"}


def keep(networks, number, n_bytes=100):
    """Keep a made-up network of that number and size, and return where it lies."""
    written = networks.parent / "network.xml"
    written.write_bytes(b"x" * n_bytes)
    written.with_name("network.bin").write_bytes(b"")
    kept.keep(networks, ["made up", number], written, f"network {number}")
    return networks / kept.key_of(["made up", number])


def test_of_what_is_kept_nothing_torn_changed_moved_or_foreign_is_found(tmp_path, monkeypatch):
    networks = tmp_path / "networks"
    places = [keep(networks, number) for number in range(6)]
    assert [kept.find(networks, ["made up", number]).path.parent for number in range(6)] == places
    (places[0] / "network.bin").unlink()
    (places[1] / "network.xml").write_bytes(b"y" * 100)
    (places[2] / "about.json").write_text("[[[")
    shutil.rmtree(places[3])
    places[4].rename(places[3])

    assert [kept.find(networks, ["made up", number]) is None for number in range(6)] == [True] * 5 + [False]
    problems = {one.path.parent: one.problem for one in kept.listing(networks)}
    assert [bool(problems[place]) for place in (*places[:4], places[5])] == [True] * 4 + [False]
    assert {one.path.parent for one in kept.prune(networks)} == set(places[:4])
    assert list(networks.iterdir()) == [places[5]]
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    if places[5].stat().st_uid:
        assert kept.find(networks, ["made up", 5]) is None


def test_what_was_used_longest_ago_goes_first(tmp_path, monkeypatch):
    networks = tmp_path / "networks"
    places = [keep(networks, number) for number in range(3)]
    for age, place in enumerate(places):
        os.utime(place / "about.json", (age, age))
    assert kept.find(networks, ["made up", 0])  # which is a use
    monkeypatch.setattr(kept, "LIMIT", 250)
    last = keep(networks, 3)

    assert {place for place in places if place.exists()} | {last} == {places[0], last}


@pytest.mark.parametrize(
    ("named", "caches", "expected"),
    [("off", "/c", None), ("/n", "/c", "/n"), ("", "/c", "/c/featx/networks"), ("", "no/root", "HOME/.cache")],
)
def test_the_folder_of_networks_is_the_users_own(named, caches, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("FEATX_NETWORKS", named)
    monkeypatch.setenv("XDG_CACHE_HOME", caches)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    if expected == "HOME/.cache":
        expected = tmp_path / ".cache" / "featx" / "networks"

    assert kept.folder() == (expected and Path(expected))


@needs_openvino
def test_a_converted_network_is_opened_without_the_backbone_and_for_as_many_images_as_come(tmp_path):
    backbone, recipes = resolved()
    expected = eager(backbone, recipes, batch_size=4).run(images(3))
    open_engine(backbone, recipes, engine="openvino", networks=tmp_path)

    def never():
        raise AssertionError("the backbone was loaded")

    many = open_engine(never, recipes, n_images=3, networks=tmp_path)
    few = open_engine(never, recipes, n_images=3, networks=tmp_path, padded=False)
    assert (many.name, few.name, few.request_size, few.batch_size) == ("openvino", "openvino", 1, 3)
    assert many.request_size == request_size(recipes, many.batch_size) > 1
    for engine in (many, few):
        for rows, wanted in zip(engine.run(images(3)), expected, strict=True):
            assert distance(rows, wanted) <= 1e-5
    kept.note_slower(tmp_path, openvino.decides(recipes, many.request_size))
    with pytest.raises(AssertionError, match="was loaded"):
        open_engine(never, recipes, n_images=3, networks=tmp_path)


@needs_openvino
def test_a_folder_that_cannot_be_written_costs_only_the_keeping(tmp_path):
    backbone, recipes = resolved()
    (tmp_path / "file").touch()
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path / "file")

    assert engine.run(images(1))[0].shape == (1, *recipes[0].shape)


@needs_openvino
def test_a_converted_network_is_truncated(tmp_path):
    backbone, recipes = resolved("resnet18", layers=("layer1",))
    open_engine(backbone, recipes, engine="openvino", batch_size=4, networks=tmp_path)
    (weights,) = tmp_path.glob("*/network.bin")
    parameters = next(info.parameters for info in backbone.layers() if info.name == "layer1")

    assert weights.stat().st_size < 1.1 * 4 * parameters


@needs_openvino
def test_bf16_is_near_fp32_and_says_so():
    if not openvino.supports("bf16"):
        pytest.skip("this CPU has no bf16")
    backbone, recipes = resolved(layers=("layer2",), precision="bf16")
    engine = open_engine(backbone, recipes, engine="openvino", batch_size=4)
    full = eager(*resolved(layers=("layer2",)), batch_size=4).run(images(4))[0]

    assert engine.precision == "bf16"
    assert 1e-5 < distance(engine.run(images(4))[0], full) <= 1e-2


def test_eager_bf16_is_near_fp32():
    half = eager(*resolved(layers=("layer2",), precision="bf16"), batch_size=4).run(images(4))[0]
    full = eager(*resolved(layers=("layer2",)), batch_size=4).run(images(4))[0]

    assert half.dtype == np.float32
    assert 1e-5 < distance(half, full) <= 1e-2


@pytest.mark.parametrize(("n", "shape"), [(1, 1), (2, 2), (3, 4), (5, 8), (9, 8)])
def test_unpadded_requests_take_the_next_power_of_two_and_the_tier_holds(n, shape):
    backbone, recipes = resolved()
    engine, seen = eager(backbone, recipes, batch_size=8, padded=False), []
    compute = engine._compute
    engine._compute = lambda pixels: seen.append(len(pixels)) or compute(pixels)
    found = engine.run(images(n))

    assert seen[0] == shape
    assert sum(seen) < 2 * n + 1
    for rows, wanted in zip(found, eager(backbone, recipes, batch_size=32).run(images(n)), strict=True):
        assert distance(rows, wanted) <= 1e-5


@pytest.mark.slow
def test_compile_agrees_with_eager():
    backbone, recipes = resolved(layers=("layer1",))
    expected = eager(backbone, recipes, batch_size=4).run(images(4))
    engine = open_engine(backbone, recipes, engine="compile", device="cpu", batch_size=4)

    assert distance(engine.run(images(4))[0], expected[0]) <= 1e-5


# graphs for other devices and types


def exported(backbone, recipes, n, device=None):
    return export(backbone, recipes, n, device).module()


def test_a_graph_for_a_gpu_holds_nothing_to_the_cpu():
    """Run without numbers on the meta device: with anything left on the CPU, or asserted to be there, it fails."""
    backbone, recipes = resolved("timm/test_vit", layers=("blocks.1",), image_size=160)
    rows = exported(backbone, recipes, 2, torch.device("meta"))(blank(recipes, 2).to("meta"))

    assert [(row.device.type, tuple(row.shape)) for row in rows] == [("meta", (2, *recipes[0].shape))]


def test_a_graph_for_a_gpu_gives_rows_on_that_gpu():
    """Run with tensors that say they are on the GPU and hold no numbers."""
    backbone, recipes = resolved(layers=("layer1",))
    program = export(backbone, recipes, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = move_to_device_pass(program, torch.device("cuda:1")).module()
        rows = network(blank(recipes, 2).to("cuda:1"))

    assert [row.device for row in rows] == [torch.device("cuda:1")]


def test_a_graph_computes_in_bf16_under_autocast():
    backbone, recipes = resolved(layers=("layer2",))
    graph, pixels = exported(backbone, recipes, 4), torch.from_numpy(images(4))
    with torch.no_grad(), arithmetic(torch.device("cpu"), "bf16"):
        (half,) = graph(pixels)

    assert 1e-5 < distance(half.float().numpy(), eager(backbone, recipes, batch_size=4).run(images(4))[0]) <= 1e-2


def test_memory_that_runs_out_while_compiling_is_for_whoever_halves_the_batch(monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(pytorch, "compute_with", lambda *_: full)
    backbone, recipes = resolved(layers=("layer1",))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        pytorch.compiled(backbone, recipes, 2, torch.device("cpu"))


def test_a_network_too_large_for_the_gpu_is_a_sentence(monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(choose, "_by_pytorch", full)
    backbone, recipes = resolved()
    job = choose._Job(backbone, recipes, ["cuda"], 4, None, padded=True)
    with pytest.raises(OptionError, match=r"test_resnet does not fit the memory of cuda.*--device cpu"):
        choose._largest_that_fits(job, "eager")


@pytest.mark.parametrize("place", ["backends.fp32_precision", "backends.cuda.matmul.fp32_precision"])
def test_torchs_newer_settings_of_precision_are_no_trouble(place):
    code = (
        f"import torch; torch.{place} = 'tf32'\n"
        "from featx.devices import arithmetic\n"
        "with arithmetic(torch.device('cpu'), 'fp32'):\n"
        "    print(torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision)\n"
        f"print(torch.{place})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["ieee", "ieee", "tf32"]


def test_two_precisions_at_once_do_not_leak_into_each_other():
    cpu, order, inside = torch.device("cpu"), [], threading.Event()

    def products():
        return torch.backends.cuda.matmul.fp32_precision

    def other():
        inside.wait(30)
        with arithmetic(cpu, "tf32"):
            order.append(products())

    before = products()
    thread = threading.Thread(target=other)
    thread.start()
    with arithmetic(cpu, "fp32"), arithmetic(cpu, "fp32"):
        inside.set()
        thread.join(0.2)
        order.append(products())
    thread.join(30)

    assert order == ["ieee", "tf32"]
    assert products() == before
    with pytest.raises(RuntimeError, match="another arithmetic"), arithmetic(cpu, "fp32"), arithmetic(cpu, "tf32"):
        pass
    assert products() == before


# choice


def test_a_short_job_is_done_in_eager_before_a_conversion_ends():
    backbone, recipes = resolved()

    for n_images in (None, 1, 5):
        engine = open_engine(backbone, recipes, device="cpu", n_images=n_images)
        assert engine.name == "eager"
        assert "too short" in engine.why or "not installed" in engine.why


@needs_openvino
@pytest.mark.parametrize(("backbone", "tried"), [("alexnet", True), ("densenet121", False)])
def test_a_deep_network_must_run_for_longer_until_its_conversion_pays(backbone, tried, monkeypatch):
    def convert(*_, **__):
        raise OptionError("it was tried")

    monkeypatch.setattr(choose, "_rate", lambda *_: 10.0)
    monkeypatch.setattr(choose, "_converted", convert)
    found = resolved(backbone, layers=())
    engine = open_engine(*found, device="cpu", n_images=50)

    assert ("it was tried" in engine.why) == tried
    assert ("too short" in engine.why) != tried


@needs_openvino
def test_a_long_job_takes_whichever_measures_faster(tmp_path):
    backbone, recipes = resolved(layers=("layer1",))
    engine = open_engine(backbone, recipes, device="cpu", n_images=10_000_000, batch_size=4, networks=tmp_path)

    assert engine.name in {"eager", "openvino"}
    assert "images/s here, eager" in engine.why


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorrt"}, "--engine must be one of auto, eager, compile, openvino; got 'tensorrt'"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda, cuda:N or mps; got 'tpu'"),
        ({"device": "cuda:99"}, "--device cuda:99 is not there.*Type --device cpu"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_had_is_an_error(options, message):
    backbone, recipes = resolved()

    with pytest.raises(OptionError, match=message):
        open_engine(backbone, recipes, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there_is_never_the_cpu_in_silence():
    with pytest.raises(OptionError, match="--device cuda is not there: torch sees 0 CUDA devices"):
        open_engine(*resolved(), device="cuda")
    with pytest.raises(OptionError, match="--precision tf32 needs a CUDA device"):
        open_engine(*resolved(precision="tf32"))


def test_every_public_name_is_there():
    assert all(hasattr(engines, name) for name in engines.__all__)
    assert all(hasattr(backbones, name) for name in backbones.__all__)


# CUDA


@pytest.mark.cuda
@needs_cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 1e-2), ("bf16", 1e-2), ("fp16", 1e-2)])
def test_cuda_agrees_with_the_cpu(precision, tolerance):
    expected = eager(*resolved(layers=("layer2",)), batch_size=4).run(images(4))[0]
    engine = open_engine(*resolved(layers=("layer2",), precision=precision), device="cuda", batch_size=4)

    assert distance(engine.run(images(4))[0], expected) <= tolerance


@pytest.mark.cuda
@needs_cuda
def test_compile_on_cuda_agrees_with_the_cpu():
    expected = eager(*resolved(layers=("layer2",)), batch_size=4).run(images(4))[0]
    engine = open_engine(*resolved(layers=("layer2",)), engine="compile", device="cuda", batch_size=4)

    assert distance(engine.run(images(4))[0], expected) <= 1e-5


@pytest.mark.cuda
@needs_cuda
def test_on_cuda_the_batch_is_the_largest_that_fits():
    assert open_engine(*resolved(), device="cuda").batch_size >= 8
