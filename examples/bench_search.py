"""Seconds of a search among 100,000 rows of 1,280 in a file, and of all near-duplicates among 20,000 of them.

    python examples/bench_search.py [--folder DIR]

Expected on two cores that nothing else uses: a warm search in less than 50 ms, in memory for the rows' lengths alone;
near-duplicates in a few seconds, in less than 300 MiB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

import featx

ROWS, ROWS_HELD_AGAINST_ALL, D = 100_000, 20_000, 1280


def main() -> None:
    """Make a table of random rectified features, and ask it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    path = arguments.parse_args().folder / "bench_search.h5"
    if not path.exists():
        rng = np.random.default_rng(0)
        mixing = rng.standard_normal((200, D), dtype=np.float32) / 14
        X = np.maximum(rng.standard_normal((ROWS, 200), dtype=np.float32) @ mixing, 0)
        X[ROWS_HELD_AGAINST_ALL // 2 :: 1000] = X[::1000][: len(X[ROWS_HELD_AGAINST_ALL // 2 :: 1000])] * 1.01
        featx.Features.from_arrays(X).export(path)
        del X
    table = featx.Features.open(path)
    seconds = []
    for row in range(12):
        started = time.perf_counter()
        table.search(row, k=20)
        seconds.append(time.perf_counter() - started)
    print(f"search of {ROWS:,} × {D:,}: first {seconds[0]:.3f} s, then {1000 * np.median(seconds[2:]):.1f} ms")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    found = featx.duplicates(table.select(slice(ROWS_HELD_AGAINST_ALL)))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(
        f"near-duplicates of {ROWS_HELD_AGAINST_ALL:,}: {time.perf_counter() - started:.1f} s, {more} MiB more, "
        f"{found.facts['clusters']} clusters"
    )


if __name__ == "__main__":
    main()
