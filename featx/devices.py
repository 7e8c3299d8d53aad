"""Which device computes, in which arithmetic, and what is done when its memory runs out.

A device has one meaning everywhere: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` and ``mps``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from featx.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import torch

log = logging.getLogger("featx")

_T = TypeVar("_T")

_DEVICES = re.compile(r"auto|cpu|mps|cuda(?::(\d+))?")
#: Closed forms of tables of at most so many values take less time than a GPU's start.
WORTH_A_GPU = 1 << 23
#: In how many parts work is done on a GPU whose memory does not take it whole, before the CPU does it.
PARTS = (1, 2, 4, 8)


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
