"""How fast `featx explore` answers on 100,000 rows of 1,280 values, and what memory it takes beside the mapped table.

    python examples/bench_explore.py --rows 100000

Rows are drawn in clusters, a class each. The server
is a process of its own; times are those of a client on the same machine, medians of five. About two minutes.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from featx import Features

OWN = {"x-featx": "1"}
CLASSES = 20


def make_table(path, n, d):
    """Write a table of unlabelled rows in clusters, and return the true classes."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, d), np.float32)
    y = rng.integers(0, CLASSES, n)
    X = np.maximum(centres[y] + 1.6 * rng.standard_normal((n, d), np.float32), 0)
    Features.from_arrays(X, np.full(n, -1), classes=[f"class {k}" for k in range(CLASSES)]).export(path)
    return y


def memory(pid):
    """Return megabytes that a process and its children hold: their own, and all with files that are mapped."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    own = mapped = 0
    for one in pids:
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith(("RssAnon", "RssShmem")):
                own += int(line.split()[1])
            if line.startswith("RssFile"):
                mapped += int(line.split()[1])
    return own / 1000, mapped / 1000


def timed(call, times=5):
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call().raise_for_status()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def first_screen(client):
    """Ask for all that the page asks for before it is complete."""
    client.get("").raise_for_status()
    for name in ("app.js", "style.css", "map.js", "grid.js", "panel.js"):
        client.get(f"page/{name}").raise_for_status()
    client.post("api/start", json={}).raise_for_status()
    for name in ("label", "touched", "rank", "map-principal"):
        client.get(f"api/array/{name}").raise_for_status()
    return client.post("api/next", json={"n": 48})


def wait_learned(client, n):
    """Wait until the head has learned `n` labels, and return its news."""
    after = 0
    while True:
        news = client.get(f"api/changes?after={after}&wait=20").json()
        after = news["revision"]
        if news.get("learned", {}).get("n_labelled") == n:
            return news["learned"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=1280)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth = make_table(Path(folder, "t.h5"), given.rows, given.columns)
        command = [
            sys.executable,
            "-m",
            "featx",
            "explore",
            f"{folder}/t.h5",
            "--no-browser",
            "--labels",
            f"{folder}/l.csv",
        ]
        started = time.perf_counter()
        server = subprocess.Popen([*command, "-q", "--cache", folder], stdout=subprocess.PIPE, text=True)
        address = server.stdout.readline().strip()
        print(f"from the command to the address   {time.perf_counter() - started:8.2f} s")
        try:
            with httpx.Client(base_url=address, headers=OWN, timeout=120) as client:
                measure(client, truth, server.pid)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def measure(client, truth, pid):
    """Print what each question takes."""
    print(f"first screen                      {timed(lambda: first_screen(client), 1):8.2f} s")
    rng, labelled = np.random.default_rng(0), 0
    for size in (100, 500, 5000):
        rows = rng.permutation(len(truth))[labelled : labelled + size]
        for k in range(CLASSES):
            mine = rows[truth[rows] == k].tolist()
            client.post("api/label", json={"rows": mine, "label": f"class {k}"}).raise_for_status()
        labelled = client.get("api/changes?after=0&wait=0").json()["n_labelled"]
        wait_learned(client, labelled)
        seconds, answered = [], []
        for row in np.flatnonzero(np.isin(np.arange(len(truth)), rows))[:5].tolist():
            started = time.perf_counter()
            client.post("api/label", json={"rows": [row], "label": f"class {truth[row]}"})
            answered.append(time.perf_counter() - started)
            client.post("api/label", json={"rows": [row], "label": None})
            learned = wait_learned(client, labelled - 1)
            client.post("api/undo", json={})
            started = time.perf_counter()
            learned = wait_learned(client, labelled)
            seconds.append(time.perf_counter() - started)
        accuracy = (learned["accuracy"] or {}).get("value", float("nan"))
        print(
            f"{labelled:6,} labels: one is on the disk in {1000 * statistics.median(answered):6.1f} ms, learned in "
            f"{statistics.median(seconds):5.2f} s (fit {learned['seconds']:.2f} s), accuracy {100 * accuracy:.1f} %"
        )
    search = timed(lambda: client.post("api/search", json={"like": [1, 2], "unlike": [3], "k": 200}), 9)
    print(f"search, exact                     {1000 * search:8.1f} ms")
    print(f"next to label, 48                 {timed(lambda: client.post('api/next', json={'n': 48}), 3):8.2f} s")
    print(f"doubts                            {timed(lambda: client.post('api/doubts', json={}), 3):8.2f} s")
    print(
        "slices                            "
        f"{timed(lambda: client.post('api/slices', json={'column': 'label'}), 3):8.2f} s"
    )
    print(f"outliers                          {timed(lambda: client.post('api/outliers', json={}), 1):8.2f} s")
    own, mapped = memory(pid)
    print(f"memory                            {own:8.0f} MB of its own, {mapped:.0f} MB mapped from files")


if __name__ == "__main__":
    os.environ.setdefault("XDG_CACHE_HOME", tempfile.gettempdir())
    main()
