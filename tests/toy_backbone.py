"""A network small enough for clusters on two cores, that keeps a record of the batches it sees."""

import hashlib
import os
import time
from pathlib import Path

import torch
from torch import nn


class Recording(nn.Module):
    """One convolution, which writes a line for every batch of eight images, none of them blank: ``process hash``.

    In the folder FEATX_TOY_FOLDER lie the ``record`` and, where tests put them there, ``together`` (batches
    wait until so many processes have met one) and ``deadly`` (a batch with a white image kills its process).
    """

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, pixels):
        folder = os.environ.get("FEATX_TOY_FOLDER")
        if (
            folder and len(pixels) == 8 and pixels.std(dim=(2, 3)).amax(dim=1).min() > 0
        ):  # a probe is padded with blanks
            _meet(Path(folder), pixels)
        return torch.relu(self.convolution(pixels))


def _meet(folder, pixels):
    if (folder / "deadly").exists() and (pixels.mean(dim=(1, 2, 3)) > 0.95).any():
        os._exit(1)
    with (folder / "record").open("a") as file:
        file.write(f"{os.getpid()} {hashlib.sha256(pixels.numpy().tobytes()).hexdigest()}\n")
    deadline = time.monotonic() + 120
    while (folder / "together").exists() and time.monotonic() < deadline:
        if len({line.split()[0] for line in read_record(folder)}) >= int((folder / "together").read_text()):
            break
        time.sleep(0.02)


def read_record(folder):
    """Return the lines of the record."""
    path = Path(folder) / "record"
    return path.read_text().splitlines() if path.exists() else []


def network():
    """Return the network, with weights of its own seed."""
    torch.manual_seed(0)
    return Recording()
