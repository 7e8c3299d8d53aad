"""How many processor cores are ours, and how threads wait for each other.

The cores are those that the process may use: its affinity, a container's quota, and ``FEATX_THREADS`` below both.
OpenMP threads spin at barriers by default. That is fastest while every thread has a core; beside a busy process it
burns the time in which the thread that all wait for could run (`examples/bench_latency.py`). So where somebody else
is running when a command starts, its threads sleep while they wait.
"""

from __future__ import annotations

import os
from pathlib import Path

from featx.errors import OptionError

#: The user's own limit.
VARIABLE = "FEATX_THREADS"
#: Where Linux keeps a container's quota of processor time.
_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))


def n_cores() -> int:
    """Return how many processor cores this process may use, at least 1.

    Raises
    ------
    OptionError
        If ``FEATX_THREADS`` is no number of threads.
    """
    import joblib

    found: int = joblib.cpu_count()
    asked = os.environ.get(VARIABLE)
    return found if not asked else min(found, parse_threads(asked))


def parse_threads(text: str) -> int:
    """Return a number of threads as it is typed.

    Raises
    ------
    OptionError
        If it is none.
    """
    if not text.strip().isdecimal() or not 1 <= int(text) <= 4096:
        raise OptionError(f"{VARIABLE} and --threads take a number of threads such as 4, got {text!r}.")
    return int(text)


def configure() -> None:
    """Tell the libraries of this process how many threads to start and how those wait.

    They read it when they are loaded: call this first. What the user has set in the environment stays.
    """
    if VARIABLE in os.environ or any(path.exists() for path in _QUOTAS):
        os.environ.setdefault("OMP_NUM_THREADS", str(n_cores()))
    if n_running() > 1:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def n_running() -> int:
    """Return how many threads of this machine run or wait for a core right now, this one included; 1 where unknown."""
    try:
        return int(Path("/proc/loadavg").read_text("ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1
