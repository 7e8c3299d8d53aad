"""How many processor cores are ours, how threads wait for each other, and how processes of our own start.

The cores are those that the process may use: its affinity, a container's quota, and ``FEATX_THREADS`` below both.
OpenMP threads spin at barriers by default. That is fastest while every thread has a core; beside a busy process it
burns the time in which the thread that all wait for could run (`examples/bench_latency.py`). So where somebody else
is running when a command starts, its threads sleep while they wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from featx.errors import OptionError

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
