"""Which device computes: the one meaning of ``auto``, ``cpu``, ``cuda`` and ``cuda:N``."""

from __future__ import annotations

import re

from featx.errors import OptionError

_DEVICES = re.compile(r"auto|cpu|cuda(?::(\d+))?")


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
    featx.errors.OptionError: --device must be auto, cpu, cuda or cuda:N; got 'cuda:x'.
    """
    if isinstance(device, str) and device.partition(":")[0] == "mps":
        raise OptionError(f"{option} mps: featx does not run on Apple's GPUs yet. {_typed(option, 'cpu')}.")
    if not isinstance(device, str) or _DEVICES.fullmatch(device) is None:
        raise OptionError(f"{option} must be auto, cpu, cuda or cuda:N; got {device!r}.")


def resolve_device(device: str, option: str = "--device") -> str:
    """Return what `device` means on this machine: ``cpu``, ``cuda`` or ``cuda:N``; torch is not imported for ``cpu``.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        ``auto`` is CUDA where there is one.
    option : str
        What to call it in messages.

    Raises
    ------
    OptionError
        If it is no device's name, or this machine has no such device: a device that was named is never replaced.
    """
    check_device(device, option)
    if device == "cpu":
        return device
    n_devices = n_cuda_devices()
    if device == "auto":
        return "cuda" if n_devices else "cpu"
    number = int(device.partition(":")[2] or 0)
    if number < n_devices:
        return device
    if not n_devices:
        raise OptionError(f"{option} {device} is not there: torch sees 0 CUDA devices. {_typed(option, 'cpu')}.")
    there = ", ".join(f"cuda:{i}" for i in range(n_devices))
    raise OptionError(f"{option} {device} is not there: torch sees {there}. {_typed(option, there.split(', ')[-1])}.")


def n_cuda_devices() -> int:
    """Return how many CUDA devices torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _typed(option: str, device: str) -> str:
    return f"Type {option} {device}" if option.startswith("-") else f'Use {option}="{device}"'
