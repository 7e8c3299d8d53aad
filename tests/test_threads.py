"""Cores are those that the process may use, and threads that share a machine do not spin."""

import os
import subprocess
import sys

import pytest

from featx import threads
from featx.errors import OptionError


def test_cores_are_those_of_the_affinity():
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); from featx.threads import n_cores; print(n_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("4000", None)])
def test_the_users_limit_is_kept_below_what_there_is(monkeypatch, asked, expected):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    all_of_them = threads.n_cores()
    monkeypatch.setenv(threads.VARIABLE, asked)

    assert threads.n_cores() == (expected or all_of_them)


@pytest.mark.parametrize("asked", ["0", "-1", "many", "1.5", "99999"])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, asked):
    monkeypatch.setenv(threads.VARIABLE, asked)

    with pytest.raises(OptionError, match="such as 4"):
        threads.n_cores()


@pytest.mark.parametrize(("running", "policy"), [(1, None), (2, "PASSIVE")])
def test_threads_sleep_while_they_wait_where_somebody_else_runs(monkeypatch, running, policy):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(threads, "n_running", lambda: running)

    threads.configure()

    assert os.environ.get("OMP_WAIT_POLICY") == policy
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv(threads.VARIABLE, "1")
    monkeypatch.setattr(threads, "n_running", lambda: 9)

    threads.configure()

    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OMP_NUM_THREADS"]) == ("ACTIVE", "7")


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
