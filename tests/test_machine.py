"""Cores are those that the process may use; a device's name means one thing, and what is not there is an error."""

import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pretended_gpu
import pytest
import torch
from sklearn.base import clone
from test_engines import distance, images, resolved

from featx import CentroidHead, ConvHead, DenseHead, KNNHead, LogisticHead, RidgeHead, XGBoostHead, machine
from featx.devices import automatic, check_device, resolve_device
from featx.engines import open_engine
from featx.errors import OptionError
from featx.extraction import Rank


def test_cores_are_those_of_the_affinity():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from featx.machine import n_cores; print(n_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("4000", None)])
def test_the_users_limit_is_kept_below_what_there_is(monkeypatch, asked, expected):
    monkeypatch.delenv(machine.VARIABLE, raising=False)
    all_of_them = machine.n_cores()
    monkeypatch.setenv(machine.VARIABLE, asked)

    assert machine.n_cores() == (expected or all_of_them)


@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5", "99999"])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, asked):
    monkeypatch.setenv(machine.VARIABLE, asked)

    with pytest.raises(OptionError, match="such as 4"):
        machine.n_cores()


@pytest.mark.parametrize(("running", "policy"), [(1, None), (2, "PASSIVE")])
def test_threads_sleep_while_they_wait_where_somebody_else_runs(monkeypatch, running, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(machine, "n_running", lambda: running)

    machine.configure()

    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv(machine.VARIABLE, "1")
    monkeypatch.setattr(machine, "n_running", lambda: 9)

    machine.configure()

    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OMP_NUM_THREADS"]) == ("ACTIVE", "7")


def test_one_thread_computes_where_others_take_the_cores():
    code = (
        "import os, subprocess, sys, time; from featx.machine import configure, n_running, share_cores\n"
        "if sys.argv[1] == 'command': configure()\n"
        "import numpy, threadpoolctl\n"
        "threads = lambda: max(pool['num_threads'] for pool in threadpoolctl.threadpool_info())\n"
        "before = threads(); others = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(4)]\n"
        "time.sleep(1.5); share_cores(); print(before, threads()); [other.kill() for other in others]"
    )
    run = partial(subprocess.run, capture_output=True, text=True, check=True)
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with_cores = ["taskset", "-c", "0-1"] if shutil.which("taskset") and (os.cpu_count() or 1) > 1 else []
    _, command = run([*with_cores, sys.executable, "-c", code, "command"], env=env).stdout.split()
    before, library = run([sys.executable, "-c", code, "library"], env=env).stdout.split()

    assert command == "1"
    assert library == before


def test_a_command_computes_with_as_many_threads_as_asked_for():
    code = (
        "import sys; from featx.cli import main; main(['heads', '-q', '--threads', '1']); "
        "import torch; sys.stderr.write(f'threads {torch.get_num_threads()}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.endswith("threads 1")


def test_a_wrong_number_of_threads_ends_a_command_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "featx", "heads", "--threads", "x"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr == "Error: FEATX_THREADS and --threads take a number of threads such as 4, got 'x'.\n"


NO_APPLE = (
    "--device mps runs frozen networks alone (extract, predict), in --precision fp32 or fp16: Apple's GPUs have no "
    "float64. Type --device cpu."
)


def pretend(monkeypatch, n):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)


@pytest.mark.parametrize(
    ("device", "n", "found"),
    [("auto", 0, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda", 1, "cuda"), ("cuda:1", 2, "cuda:1")],
)
def test_a_name_means_one_device(device, n, found, monkeypatch):
    pretend(monkeypatch, n)

    assert resolve_device(device) == found


@pytest.mark.parametrize(
    ("device", "n", "message"),
    [
        ("cuda", 0, "--device cuda is not there: torch sees 0 CUDA devices. Type --device cpu."),
        ("cuda:7", 1, "--device cuda:7 is not there: torch sees cuda:0. Type --device cuda:0."),
        ("cuda:2", 2, "--device cuda:2 is not there: torch sees cuda:0, cuda:1. Type --device cuda:1."),
        ("mps", 0, NO_APPLE),
        ("cuda:x", 1, "--device must be auto, cpu, cuda, cuda:N or mps; got 'cuda:x'."),
        ("cuda:-1", 1, "--device must be auto, cpu, cuda, cuda:N or mps; got 'cuda:-1'."),
        (0, 1, "--device must be auto, cpu, cuda, cuda:N or mps; got 0."),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(device, n, message, monkeypatch):
    pretend(monkeypatch, n)

    with pytest.raises(OptionError) as caught:
        resolve_device(device)
    assert str(caught.value) == message


def test_a_device_of_another_machine_can_be_named():
    check_device("cuda:7")
    with pytest.raises(OptionError, match=r"device must be auto.*'tpu'"):
        check_device("tpu", "device")


def test_the_cpu_needs_no_torch():
    code = "import sys; from featx.devices import resolve_device; resolve_device('cpu'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("head", [LogisticHead, XGBoostHead])
def test_heads_and_engines_refuse_a_second_gpu_where_there_is_one(head, monkeypatch):
    pretend(monkeypatch, 1)
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    with pytest.raises(OptionError, match=r'device cuda:1 is not there: torch sees cuda:0\. Use device="cuda:0"'):
        head(device="cuda:1").fit(X, y)
    with pytest.raises(OptionError, match="--device cuda:1 is not there: torch sees cuda:0"):
        open_engine(*resolved(), device="cuda:1")


def test_each_rank_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    pretend(monkeypatch, 2)
    ranks = [Rank(i, 4, i, 4) for i in range(4)]

    assert [rank.device("auto") for rank in ranks] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [rank.device("cuda") for rank in ranks] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert [rank.device("cuda:1") for rank in ranks] == ["cuda:1"] * 4
    assert ranks[1].device("cpu") == "cpu"
    pretend(monkeypatch, 0)
    assert ranks[1].device("auto") == "auto"
    assert ranks[1].device("cuda") == "cuda"


def test_auto_means_no_gpu_for_a_table_that_is_done_before_it_has_started(monkeypatch):
    pretend(monkeypatch, 1)

    assert [automatic(n) for n in (None, 1 << 23, (1 << 23) + 1)] == ["cuda", "cpu", "cuda"]


@pytest.mark.parametrize("n", [0, 1])
def test_a_head_fitted_on_a_gpu_predicts_where_that_is_not_there(n):
    maps, y = np.random.default_rng(0).random((20, 1, 4, 4), np.float32), np.arange(20) % 2
    with pretended_gpu.pretended(2):
        head = ConvHead("conv2 relu flat", epochs=1, device="cuda:1", random_state=0).fit(maps, y)
    expected = head.predict_proba(maps) if n == 0 else None
    with pretended_gpu.pretended(n):
        found = head.predict_proba(maps)

    assert head.device == "cuda:1"
    assert found.shape == (20, 2)
    assert expected is None or np.array_equal(found, expected)


def test_an_apple_gpu_runs_frozen_networks_and_nothing_else():
    expected = open_engine(*resolved(layers=("layer2",)), device="cpu", batch_size=4).run(images(4))[0]
    with pretended_gpu.pretended(1, "mps") as used:
        engine = open_engine(*resolved(layers=("layer2",)), device="mps", batch_size=4)
        half = open_engine(*resolved(layers=("layer2",), precision="fp16"), device="mps", batch_size=4)

        assert engine.name == "eager"
        assert distance(engine.run(images(4))[0], expected) <= 1e-5
        assert distance(half.run(images(4))[0], expected) <= 1e-2
        assert used[0]
        for asked in ({"engine": "compile"}, {"precision": "bf16"}):
            precision = asked.pop("precision", "fp32")
            with pytest.raises(OptionError, match="--device mps runs --engine eager in --precision fp32 or fp16"):
                open_engine(*resolved(precision=precision), device="mps", **asked)
        with pytest.raises(OptionError, match='device mps runs frozen networks alone.*Use device="cpu"'):
            LogisticHead(device="mps").fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(OptionError, match="--device mps is not there: torch sees no Apple GPU. Type --device cpu"):
        open_engine(*resolved(), device="mps")


def test_an_apple_gpu_that_computes_otherwise_than_a_cpu_is_refused(monkeypatch):
    from featx.engines import pytorch

    compute_with = pytorch.compute_with

    def wrong(network, device, precision):
        compute = compute_with(network, device, precision)
        return (lambda pixels: [rows * 1.001 for rows in compute(pixels)]) if device.type == "mps" else compute

    monkeypatch.setattr(pytorch, "compute_with", wrong)
    with (
        pretended_gpu.pretended(1, "mps"),
        pytest.raises(OptionError, match="test_resnet does not compute on this Apple GPU what it does on a CPU"),
    ):
        open_engine(*resolved(layers=("layer2",)), device="mps", batch_size=4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize(
    "head", [LogisticHead(), RidgeHead(), CentroidHead(), KNNHead(), DenseHead(16, epochs=3)], ids=repr
)
def test_heads_on_cuda_agree_with_the_cpu(head):
    rng = np.random.default_rng(0)
    y = np.arange(600) % 3
    X = rng.standard_normal((600, 20), np.float32) + rng.standard_normal((3, 20), np.float32)[y]
    on_cpu, on_gpu = (clone(head).set_params(device=device).fit(X, y).predict_proba(X) for device in ("cpu", "cuda"))

    assert abs(on_cpu - on_gpu).mean() < (0.05 if isinstance(head, DenseHead) else 1e-3)
