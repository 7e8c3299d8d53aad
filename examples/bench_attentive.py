"""An attentive head from cached maps, against the same steps with the frozen backbone in the loop.

    python examples/bench_attentive.py photos/ --most 600 --epochs 20

Both see the same rows in the same order and begin with the same weights, so both end with the same head. Decoding is
not counted for either; extraction is, in the second row of seconds.

Expected: scores differ by rounding, and the loop takes as many times longer as the backbone costs more than the head.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import featx
from featx import AttentiveHead, backbones
from featx.datasets.dataset import select
from featx.engines.pytorch import from_pixels
from featx.extraction import Options
from featx.finetuning.sources import decode
from featx.heads.inputs import read_training
from featx.heads.networks import TableBatches
from featx.heads.training import Trainer, forked_seeds


class InTheLoop(TableBatches):
    """Batches whose maps the backbone makes anew; rows hold the numbers of their images."""

    compute: Any

    def steps(self, epoch: int, first: int = 0) -> Iterator[tuple[int, list[Any]]]:
        """Yield all rows, as of a table of maps."""
        for n, ((rows, *rest),) in super().steps(epoch, first):
            yield n, [(self.compute(rows[:, 0].long().numpy()), *rest)]


def main() -> None:
    """Print both times and how far the scores differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--most", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cache", default="cache")
    args = parser.parse_args()
    dataset = featx.open_dataset(args.data)
    some = np.sort(np.random.default_rng(0).permutation(len(dataset))[: args.most])
    dataset = select(dataset, some)
    started = time.perf_counter()
    table = featx.extract(dataset, pool="none", cache=args.cache)
    seconds = {"extract": time.perf_counter() - started}
    settings: dict[str, Any] = {"epochs": args.epochs, "random_state": 0}
    started = time.perf_counter()
    cached = AttentiveHead(**settings).fit(table)
    seconds["cached"] = time.perf_counter() - started

    request = featx.Request(pool="none")
    backbone, (recipe,) = backbones.resolve(request)
    images = decode(dataset, recipe.frame, Options(), args.cache, test=True, on_progress=None)
    body = from_pixels(backbone, [recipe]).eval()
    head = AttentiveHead(**settings)
    training = read_training(head, np.arange(len(table), dtype=np.float32)[:, None], table.y)
    head.row_shape_, head.n_features_in_ = table.shape[1:], int(np.prod(table.shape[1:]))
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    with forked_seeds("cpu", seed):
        network = head.network_module(fitted=False)
    batches = InTheLoop(training, head.batch_size, seed, "cpu")

    def compute(positions: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            (maps,) = body(images.batch(positions, None))
        return maps.clone()

    batches.compute = compute
    started = time.perf_counter()
    Trainer(network, batches, head._config(), seed=seed).run()  # noqa: SLF001 - the steps are its own
    seconds["in the loop"] = time.perf_counter() - started
    head.keep(network)
    ours, theirs = cached.decision_function(table), head.decision_function(table)
    print(
        json.dumps(
            {
                "images": len(table),
                "seconds": {name: round(value, 2) for name, value in seconds.items()},
                "times": round(seconds["in the loop"] / seconds["cached"], 1),
                "largest difference of scores": float(np.abs(ours - theirs).max()),
                "same label": float((ours.argmax(1) == theirs.argmax(1)).mean()),
            }
        )
    )


if __name__ == "__main__":
    main()
