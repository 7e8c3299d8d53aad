"""What a Ray cluster costs over local processes: the same images, backbone and number of processes, side by side.

    python examples/bench_cluster.py cifar10/                    # two processes, vgg16 block3_pool at 32 × 32
    python examples/bench_cluster.py cifar10/ --processes 8 --images 60000 --rounds 5 --json

``local`` is `featx extract` started once for each process with RANK and WORLD_SIZE, as torchrun does; ``ray`` is
`featx extract --cluster` on a cluster of as many nodes of one core each, all on this machine. Every process
has one thread and decodes by itself. Both extract `--few` images and then `--images`, each into an empty cache:
the difference is what images cost, free of what it costs to start, which is told apart.

Expected on two cores, which Ray's own processes and the driver share with the workers: 1.0 to 1.1 times the seconds an
image, and eight seconds more to start.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from featx import extraction

OPTIONS = ["--backbone=vgg16", "--weights=none", "--image-size=32", "--layer=block3_pool", "--pool=flatten"]
HOW = ["--engine=eager", "--batch-size=64", "--workers=0", "--device=cpu", "--quiet"]


def write_images(source: str, n: int, folder: Path) -> Path:
    """Write the first `n` images of a dataset, as they are, into a folder of files."""
    folder.mkdir()
    for index, data in extraction.open_dataset(source).iterate(range(n)):
        (folder / f"{index:06}.jpg").write_bytes(data)
    return folder


def seconds(images: Path, scratch: Path, environments: list[dict[str, str]], *more: str) -> float:
    """Return how long `featx extract` takes from start to table, one process an environment."""
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        command = [sys.executable, "-m", "featx", "extract", str(images), f"--cache={cache}", *OPTIONS, *HOW, *more]
        started = time.perf_counter()
        running = [subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL) for env in environments]
        codes = [process.wait() for process in running]
        took = time.perf_counter() - started
    if any(codes):
        raise SystemExit(f"featx extract failed: exit status {codes}")
    return took


def start_nodes(n: int) -> str:
    """Start a cluster of `n` nodes of one core each on this machine, which ends with this process."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for node in range(n):
        more = {"include_dashboard": False} if node == 0 else {}
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20, **more)
    return cluster.address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--few", type=int, default=512)
    parser.add_argument("--images", type=int, default=16_896)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    one_thread = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ.update(one_thread)
    ranks = [{"RANK": str(rank), "WORLD_SIZE": str(args.processes)} for rank in range(args.processes)]
    cluster = f"--cluster=ray:{start_nodes(args.processes)}"
    rounds: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        few = write_images(args.data, args.few, scratch / "few")
        many = write_images(args.data, args.images, scratch / "many")
        for _ in range(args.rounds):
            rounds["local"].append((seconds(few, scratch, ranks), seconds(many, scratch, ranks)))
            rounds["ray"].append((seconds(few, scratch, [{}], cluster), seconds(many, scratch, [{}], cluster)))

    per_image = {name: [(m - f) / (args.images - args.few) for f, m in each] for name, each in rounds.items()}
    ratios = [r / l for r, l in zip(per_image["ray"], per_image["local"], strict=True)]
    result = {
        "ms_per_image": {name: round(1000 * statistics.median(each), 3) for name, each in per_image.items()},
        "seconds_for_few": {name: round(statistics.median(f for f, _ in each), 1) for name, each in rounds.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
    if args.json:
        print(json.dumps(result))
        return
    for name in rounds:
        print(
            f"{name:6} {result['ms_per_image'][name]} ms an image, {result['seconds_for_few'][name]} s for {args.few}"
        )
    print(f"ray / local: {result['ratio']} (rounds: {result['ratios']})")


if __name__ == "__main__":
    main()
