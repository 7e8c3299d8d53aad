"""Start `featx extract` hundreds of times under load, kill some of them at random, and count those that stand still.

    python examples/soak_starts.py                        # 500 starts, six at a time: about an hour on two cores
    python examples/soak_starts.py --starts 60 -o soak.json

Every start finds its converted network in the cache and new images to compute, so that its pool of threads asks
OpenVINO for answers at once: where two threads that are first together could wait for each other for ever. A start is
*hung* when neither it nor a child of it uses the processor for `--still` seconds; its Python stacks are then printed,
where py-spy is installed. The exit status is 1 if any start hung, or failed without having been killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TICKS = os.sysconf("SC_CLK_TCK")
OPTIONS = ["--backbone", "scratch/leaky", "--weights", "none", "--engine", "openvino", "--workers", "1", "-q"]


class Start:
    """One run of featx on images of its own."""

    def __init__(self, folder: Path, cache: Path, number: int, kill_after: float | None) -> None:
        self.images = folder / f"images{number}"
        draw(self.images, seed=number)
        # A signal is for the whole group: a decoder is not to outlive the run that started it.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "featx", "extract", str(self.images), "--cache", str(cache), *OPTIONS],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.began = self.moved = time.monotonic()
        self.kill_after, self.killed = kill_after, False
        self._used = -1.0

    def outcome(self, still: float) -> str | None:
        """Return ``done``, ``killed``, ``failed`` or ``hung``; None as long as it works."""
        now = time.monotonic()
        code = self.process.poll()
        if code is not None:
            return "killed" if self.killed else "done" if code == 0 else "failed"
        if self.kill_after is not None and not self.killed and now - self.began > self.kill_after:
            self.killed = True
            os.killpg(self.process.pid, signal.SIGKILL)
            return None
        used = processor_seconds(self.process.pid)
        if used != self._used:
            self._used, self.moved = used, now
        return "hung" if now - self.moved > still else None

    def end(self) -> str:
        """Make sure that nothing of it is left, and return what it wrote to stderr."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        _, said = self.process.communicate()
        shutil.rmtree(self.images)
        return said.strip()


def draw(folder: Path, seed: int, n: int = 40) -> None:
    """Write `n` small images that no other seed gives."""
    folder.mkdir()
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process and its children; a process that is gone has used none."""
    total = 0.0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return total
    return total + sum(processor_seconds(int(child)) for child in children)


def stacks(pid: int) -> str:
    """Return the Python stacks of a process, if py-spy is at hand."""
    if shutil.which("py-spy") is None:
        return "(pip install py-spy shows where)"
    return subprocess.run(["py-spy", "dump", "--pid", str(pid)], capture_output=True, text=True, check=False).stdout


def soak(options: argparse.Namespace) -> dict[str, Any]:
    """Run all starts and return how they ended."""
    counts = dict.fromkeys(("done", "killed", "failed", "hung"), 0)
    chance, began = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="featx-soak-") as name:
        folder, cache = Path(name), Path(name, "cache")
        first = Start(folder, cache, 0, None)  # converts the network and keeps it
        while first.outcome(options.still) is None:
            time.sleep(0.1)
        said = first.end()
        if first.process.returncode != 0:
            raise SystemExit(f"The first start failed: {said}")
        running: list[Start] = []
        number = 0
        while number < options.starts or running:
            while number < options.starts and len(running) < options.at_once:
                number += 1
                kill_after = chance.uniform(0, options.kill_within) if chance.random() < options.kills else None
                running.append(Start(folder, cache, number, kill_after))
            time.sleep(0.1)
            for start in list(running):
                outcome = start.outcome(options.still)
                if outcome is None:
                    continue
                if outcome == "hung":
                    print(stacks(start.process.pid), file=sys.stderr)
                said = start.end()
                if outcome == "failed":
                    print(said, file=sys.stderr)
                counts[outcome] += 1
                running.remove(start)
                print(f"{sum(counts.values())} of {options.starts}: {counts}", file=sys.stderr)
    return {"starts": options.starts, "at_once": options.at_once, **counts, "seconds": time.monotonic() - began}


def main() -> None:
    """Read the options, run, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--kills", type=float, default=0.2, help="share of the starts that are killed")
    parser.add_argument("--kill-within", type=float, default=20.0, help="seconds from the start")
    parser.add_argument("--still", type=float, default=60.0, help="seconds without processor time that mean a hang")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    result = soak(options)
    text = json.dumps(result)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    raise SystemExit(1 if result["hung"] or result["failed"] else 0)


if __name__ == "__main__":
    main()
