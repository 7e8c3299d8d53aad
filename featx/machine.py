"""What this process may use of the machine: its processor cores, how threads wait for them, processes beside it.

The cores are those that the process may use: its affinity, a container's quota, and ``FEATX_THREADS`` below both.
Threads that compute together spin while they wait for each other. That is fastest while every thread has a core; beside
a busy process it burns the time in which the thread that all wait for could run. So where somebody else is running when
a command starts, OpenMP's threads sleep while they wait. OpenBLAS cannot be told to: it gets as many threads as there
are cores that others leave, at the start and, by `share_cores`, about every second after. On two cores of which many
other processes want their part, the eigenvectors of a matrix of 1,280 rows take two threads 34 s and one 1.9 s, and
4.7 s and 0.23 s of processor time (`examples/bench_latency.py` has both beside one process).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import OptionError
from featx.importing import imported_later

#: The user's own limit.
VARIABLE = "FEATX_THREADS"
#: Where Linux keeps a container's quota of processor time.
_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def n_cores() -> int:
    """Return how many processor cores this process may use, at least 1.

    Raises
    ------
    OptionError
        If ``FEATX_THREADS`` is no number of threads.
    """
    with imported_later("asyncio"):  # joblib's, for functions of its own cache
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
    global _sharing
    ours = not {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"} & os.environ.keys()
    if VARIABLE in os.environ or any(path.exists() for path in _QUOTAS):
        os.environ.setdefault("OMP_NUM_THREADS", str(n_cores()))
    others = min(n_running() for _ in range(3)) - 1  # the least of three looks: what only came by is no neighbour
    if others:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if ours:
        most = n_cores()
        _sharing = _Sharing(most, max(1, most - others), *_seconds_used())
        if _sharing.now < most:
            _limit_openblas(_sharing.now)


@dataclass
class _Sharing:
    """How many threads OpenBLAS may have and has, and what was used when that was last looked at."""

    most: int
    now: int
    at: float
    busy: float
    own: float


#: None in processes that `configure` has not set up, whose threads are their owner's.
_sharing: _Sharing | None = None


def share_cores() -> None:
    """Give OpenBLAS the cores that others leave us. Loops call it at every turn; it looks once a second."""
    if _sharing is None or time.monotonic() - _sharing.at < 1:
        return
    at, busy, own = _seconds_used()
    seconds = at - _sharing.at
    others = ((busy - _sharing.busy) - (own - _sharing.own)) / seconds
    free = min(max(1, round(len(os.sched_getaffinity(0)) - others)), _sharing.most)
    if free != _sharing.now:
        _limit_openblas(free)
    _sharing.now, _sharing.at, _sharing.busy, _sharing.own = free, at, busy, own


def _limit_openblas(n: int) -> None:
    """Give so many threads to each copy of OpenBLAS that is loaded, NumPy has one and SciPy another, or will be."""
    from threadpoolctl import ThreadpoolController

    os.environ["OPENBLAS_NUM_THREADS"] = str(n)
    for library in ThreadpoolController().select(internal_api="openblas").lib_controllers:
        library.set_num_threads(n)


def _seconds_used() -> tuple[float, float, float]:
    """Return a time, and until then the seconds that the cores we may use were busy, and that they were so for us."""
    own = time.process_time()
    try:
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text("ascii").splitlines()]
    except (OSError, AttributeError):  # elsewhere than on Linux nobody else is seen
        return time.monotonic(), own, own
    # user, nice, system, idle, iowait, irq, softirq, steal: all but the fourth and the fifth
    ticks = sum(int(n) for name, *numbers in lines if name in ours for n in [*numbers[:3], *numbers[5:8]])
    return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own


def n_running() -> int:
    """Return how many threads of this machine run or wait for a core right now, this one included; 1 where unknown."""
    try:
        return int(Path("/proc/loadavg").read_text("ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1


def start_python(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """Start a process of one thread that imports what we import, and that Ctrl-C does not reach.

    Parameters
    ----------
    arguments : str
        Of the interpreter: ``-m``, ``package.module``, …
    env : dict of str to str, optional
        Beside our own environment.
    options
        Of `subprocess.Popen`.
    """
    search_path = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return subprocess.Popen(  # noqa: S603 - our own modules
        [sys.executable, "-P", *arguments],
        env=os.environ | _ONE_THREAD | (env or {}) | {"PYTHONPATH": search_path},
        process_group=0,
        **options,
    )


def limit_memory(n_bytes: int) -> None:
    """Let this process meet a MemoryError beyond `n_bytes`. Only Linux counts what is asked for here."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
