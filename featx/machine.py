"""What this machine computes with: its processor cores and how threads wait, processes, devices, arithmetic.

The cores are those that the process may use: its affinity, a container's quota, and ``FEATX_THREADS`` below both.
Threads that compute together spin while they wait for each other. That is fastest while every thread has a core; beside
a busy process it burns the time in which the thread that all wait for could run. So where somebody else is running when
a command starts, OpenMP's threads sleep while they wait. OpenBLAS cannot be told to: it gets as many threads as there
are cores that others leave, at the start and, by `share_cores`, about every second after. On two cores of which many
other processes want their part, the eigenvectors of a matrix of 1,280 rows take two threads 34 s and one 1.9 s, and
4.7 s and 0.23 s of processor time (`examples/bench_latency.py` has both beside one process).

A device has one meaning everywhere: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` and ``mps``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import torch

log = logging.getLogger("featx")

_T = TypeVar("_T")

#: The user's own limit.
VARIABLE = "FEATX_THREADS"
#: Where Linux keeps a container's quota of processor time.
_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_DEVICES = re.compile(r"auto|cpu|mps|cuda(?::(\d+))?")
#: Closed forms of tables of at most so many values take less time than a GPU's start.
WORTH_A_GPU = 1 << 23
#: In how many parts work is done on a GPU whose memory does not take it whole, before the CPU does it.
PARTS = (1, 2, 4, 8)


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


def check_device(device: str, option: str = "--device") -> None:
    """Raise `OptionError` unless `device` is a device's name, wherever that device may be.

    Parameters
    ----------
    device : str
    option : str
        What to call it in the message: the option or parameter that was typed.

    Examples
    --------
    >>> check_device("cuda:x")
    Traceback (most recent call last):
    featx.errors.OptionError: --device must be auto, cpu, cuda, cuda:N or mps; got 'cuda:x'.
    """
    if not isinstance(device, str) or _DEVICES.fullmatch(device) is None:
        raise OptionError(f"{option} must be auto, cpu, cuda, cuda:N or mps; got {device!r}.")


def resolve_device(device: str, option: str = "--device", *, n_values: int | None = None, frozen: bool = False) -> str:
    """Return what `device` means here: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; torch is not imported for ``cpu``.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}
        ``auto`` is CUDA where there is one. Apple's GPU is taken where it is named.
    option : str
        What to call it in messages.
    n_values : int, optional
        Size of the table that is to be computed on, where that may be too small for ``auto`` to mean a GPU.
    frozen : bool
        Whether it is to run a frozen network, which is all that featx does on Apple's GPUs: they have no float64.

    Raises
    ------
    OptionError
        If it is no device's name, or this machine has no such device: a device that was named is never replaced.
    """
    check_device(device, option)
    if device == "cpu":
        return device
    if device == "auto":
        return automatic(n_values)
    if device == "mps":
        _check_apple(option, frozen=frozen)
        return device
    n_devices = n_cuda_devices()
    number = int(device.partition(":")[2] or 0)
    if number < n_devices:
        return device
    if not n_devices:
        raise OptionError(f"{option} {device} is not there: torch sees 0 CUDA devices. {_typed(option, 'cpu')}.")
    there = ", ".join(f"cuda:{i}" for i in range(n_devices))
    raise OptionError(f"{option} {device} is not there: torch sees {there}. {_typed(option, there.split(', ')[-1])}.")


def _check_apple(option: str, *, frozen: bool) -> None:
    import torch

    if not frozen:
        raise OptionError(
            f"{option} mps runs frozen networks alone (extract, predict), in --precision fp32 or fp16: Apple's GPUs "
            f"have no float64. {_typed(option, 'cpu')}."
        )
    if not torch.backends.mps.is_available():
        raise OptionError(f"{option} mps is not there: torch sees no Apple GPU. {_typed(option, 'cpu')}.")


def automatic(n_values: int | None = None) -> str:
    """Return what ``auto`` means on this machine, for a table of `n_values`."""
    small = n_values is not None and n_values <= WORTH_A_GPU
    return "cpu" if small or not n_cuda_devices() else "cuda"


def resolve_devices(devices: str) -> list[str]:
    """Return the GPUs of this machine that ``--devices`` asks for.

    Parameters
    ----------
    devices : str
        ``all``, how many, or their numbers with commas between.

    Raises
    ------
    OptionError
        If it is none of these, or there are not so many.
    """
    asked = devices.removesuffix(",").split(",")
    if devices != "all" and not (all(map(str.isdecimal, asked)) and asked == list(dict.fromkeys(asked))):
        raise OptionError(f"--devices takes all, a number of GPUs, or some of them as 0,1; got {devices!r}.")
    n_there = n_cuda_devices()
    if not n_there:
        raise OptionError("--devices is for GPUs: torch sees 0 CUDA devices here. Leave it out.")
    if devices == "all":
        numbers = list(range(n_there))
    else:
        numbers = list(map(int, asked)) if "," in devices else list(range(int(devices)))
    if not numbers or max(numbers) >= n_there:
        raise OptionError(f"--devices {devices} is not there: torch sees {n_there}, 0 to {n_there - 1}. Type all.")
    return [f"cuda:{number}" for number in numbers]


def n_cuda_devices() -> int:
    """Return how many CUDA devices torch can use here; where there is no driver for one, torch is not imported."""
    if "torch" not in sys.modules and not any(map(_loads, ("libcuda.so.1", "libamdhip64.so"))):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _loads(library: str) -> bool:
    """Whether the system has a shared library of this name."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def within_memory(compute: Callable[[str, int], _T], device: str) -> _T:
    """Return ``compute(device, n_parts)``: in one part; where memory runs out in 2, 4, 8, then by the CPU; and say so.

    A GPU computes it in float32 products.

    Parameters
    ----------
    compute : callable
        Holds on the device at a time what one of so many parts needs.
    device : str
        As `resolve_device` returns it.
    """
    if device != "cpu":
        import torch

        for n_parts in PARTS:
            try:
                with arithmetic(torch.device(device), "fp32"):
                    return compute(device, n_parts)
            except torch.OutOfMemoryError:
                then = "the CPU goes on" if n_parts == PARTS[-1] else f"trying {2 * n_parts} parts, one after another"
            log.warning("The memory of %s ran out: %s.", device, then)
            release_memory()
    return compute("cpu", 1)


def release_memory() -> None:
    """Give back the memory of a GPU that a failed computation has left."""
    import torch

    gc.collect()  # an error, and the tensors in its frames, refer to each other
    torch.cuda.empty_cache()


def _typed(option: str, device: str) -> str:
    return f"Type {option} {device}" if option.startswith("-") else f'Use {option}="{device}"'


@contextlib.contextmanager
def pinned(memory: np.ndarray, devices: Sequence[torch.device]) -> Iterator[None]:
    """Meanwhile, let GPUs copy from `memory` by themselves; where the system refuses, copies take a detour as before.

    Parameters
    ----------
    memory : ndarray
        Contiguous.
    devices : sequence of torch.device
    """
    import torch

    cuda: Any = torch.cuda
    runtime = cuda.cudart()
    address, portable = memory.ctypes.data, 1
    is_pinned = int(runtime.cudaHostRegister(address, memory.nbytes, portable)) == 0
    if not is_pinned:
        with contextlib.suppress(RuntimeError):  # the next operation of whomever would be told of the refusal
            torch.zeros(1, device=devices[0])
    try:
        yield
    finally:
        if is_pinned:
            for device in devices:
                cuda.synchronize(device)
            runtime.cudaHostUnregister(address)


@contextlib.contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in `precision` and nothing else, whatever the process has set; leave its settings as they were.

    The settings are the process's. Threads that want the same share them; one that wants others waits for its turn.

    Parameters
    ----------
    device : torch.device
    precision : {"fp32", "tf32", "bf16", "fp16"}
        As in `featx.recipe.Recipe`.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    autocast = torch.autocast(device.type, dtype, enabled=True) if dtype else contextlib.nullcontext()
    with _PRODUCTS.set_to("tf32" if precision == "tf32" else "ieee"), autocast:
        yield


class _Products:
    """How the process multiplies float32 numbers, by torch's newer settings: to read the older beside them fails."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._mode, self._n_inside = "", 0
        self._before: list[Any] = []
        self._own = threading.local()

    @contextlib.contextmanager
    def set_to(self, mode: str) -> Iterator[None]:
        if getattr(self._own, "mode", None) == mode:  # this thread has it so already
            yield
            return
        if getattr(self._own, "mode", None) is not None:
            raise RuntimeError("One computation within another wants another arithmetic.")
        with self._free:
            self._free.wait_for(lambda: not self._n_inside or self._mode == mode)
            if not self._n_inside:
                self._before, self._mode = _set_products([mode] * 4 + [True, False, True]), mode
            self._n_inside += 1
            self._own.mode = mode
        try:
            yield
        finally:
            with self._free:
                self._own.mode = None
                self._n_inside -= 1
                if not self._n_inside:
                    _set_products(self._before)
                    self._free.notify_all()


def _set_products(values: list[Any]) -> list[Any]:
    """Set how float32 is multiplied and how cuDNN chooses, and return what was set before."""
    import torch

    backends: Any = torch.backends
    places = [
        (backends.cuda.matmul, "fp32_precision"), (backends.cudnn.conv, "fp32_precision"),
        (backends.mkldnn.matmul, "fp32_precision"), (backends.mkldnn.conv, "fp32_precision"),
        (backends.cudnn, "enabled"), (backends.cudnn, "benchmark"), (backends.cudnn, "deterministic"),
    ]  # fmt: skip
    before = [getattr(place, name) for place, name in places]
    for (place, name), value in zip(places, values, strict=True):
        setattr(place, name, value)
    return before


_PRODUCTS = _Products()
