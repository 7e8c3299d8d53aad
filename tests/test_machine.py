"""Cores are those that the process may use; a device's name means one thing, and what is not there is an error."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from featx import LogisticHead, XGBoostHead, machine
from featx.engines import open_engine
from featx.errors import OptionError
from featx.extraction import Rank
from featx.machine import check_device, resolve_device


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
        ("mps", 0, "--device mps: featx does not run on Apple's GPUs yet. Type --device cpu."),
        ("cuda:x", 1, "--device must be auto, cpu, cuda or cuda:N; got 'cuda:x'."),
        ("cuda:-1", 1, "--device must be auto, cpu, cuda or cuda:N; got 'cuda:-1'."),
        (0, 1, "--device must be auto, cpu, cuda or cuda:N; got 0."),
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
    code = "import sys; from featx.machine import resolve_device; resolve_device('cpu'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("head", [LogisticHead, XGBoostHead])
def test_heads_and_engines_refuse_a_second_gpu_where_there_is_one(head, monkeypatch):
    from test_engines import resolved

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
