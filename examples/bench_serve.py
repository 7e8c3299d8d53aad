"""How much of the engine's own rate `featx serve` keeps, how long eight clients wait, and what hostile ones do to it.

python examples/bench_serve.py rate [PHOTOS]      # 32 and 8 keep-alive clients, tiny and photo JPEGs, lite0
python examples/bench_serve.py hostile [N]        # N requests, of them 5 % with hostile files; memory; kill and restart

Expected on two cores: at least 0.85 of the rate at which `Model.classify` reads and predicts the same files, which has
the machine to itself; with the clients on the same two cores. Every answer is held against the model's own.
"""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httptools
import numpy as np
from PIL import Image

import featx

SECONDS = 12.0
HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n"


def jpegs(n, height, width):
    """Return JPEGs of smooth noise, which take about as long to decode as photos."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        small = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=88)
        found.append(file.getvalue())
    return found


def model_file(folder):
    """Fit a model on lite0 and save it."""
    y = np.arange(240) % 3
    pixels = np.random.default_rng(0).integers(0, 130, (240, 64, 64, 3), dtype=np.uint8)
    for channel in range(3):
        pixels[y == channel, ..., channel] += 90
    np.savez(folder / "data.npz", X=pixels, y=y)
    table = featx.extract(folder / "data.npz", cache=folder / "cache", val=0.3)
    return featx.fit(table, head="logreg").save(folder / "m.featx")


class Service:
    """``featx serve`` as a process."""

    def __init__(self, path, *options):
        words = [sys.executable, "-m", "featx", "serve", str(path), "--port", "0", "--json", *options]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.port = int(json.loads(self.process.stdout.readline())["address"].rpartition(":")[2])

    def memory(self):
        """Return resident bytes of the service and its decoders."""
        pids = [self.process.pid, *map(int, _children(self.process.pid))]
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") for pid in pids)

    def end(self, how=signal.SIGTERM):
        """End it, and return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


class Client:
    """A keep-alive connection that costs little, as it shares the cores with the service."""

    async def open(self, port):
        """Connect."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def ask(self, body):
        """Return status and answer for an image."""
        self.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        self.writer.write(body)
        self.status, self.body, self.done = 0, b"", False
        parser = httptools.HttpResponseParser(self)
        while not self.done:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionError("hung up")
            parser.feed_data(data)
        return parser.get_status_code(), json.loads(self.body)

    def on_body(self, data):
        """Take a part of the answer in."""
        self.body += data

    def on_message_complete(self):
        """Know that all of it is there."""
        self.done = True

    def close(self):
        """Hang up."""
        self.writer.close()


async def load(port, images, n_clients, seconds):
    """Have clients ask one image after another, and return images a second and the seconds of each request."""
    taken, end = [], time.perf_counter() + seconds

    async def one(number):
        client, i = await Client().open(port), number
        while time.perf_counter() < end:
            start = time.perf_counter()
            status, _ = await client.ask(images[i % len(images)])
            taken.append(time.perf_counter() - start)
            assert status == 200, status
            i += n_clients
        client.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(n_clients)))
    return len(taken) / (time.perf_counter() - start), np.array(taken)


def own_rate(path, images, folder):
    """Return images a second of the model alone, with files of the same images."""
    files = []
    for i in range(640):
        files.append(folder / f"{i}.jpg")
        files[-1].write_bytes(images[i % len(images)])
    model = featx.load(path)
    model.classify(files[:128])
    start = time.perf_counter()
    model.classify(files)
    return len(files) / (time.perf_counter() - start)


def rate(photos=None):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = model_file(folder)
        kinds = {"tiny JPEGs, 32 × 32": jpegs(64, 32, 32), "photo JPEGs, 500 × 375": jpegs(64, 375, 500)}
        if photos:
            kinds[photos] = [one.read_bytes() for one in sorted(Path(photos).rglob("*.jpg"))[:64]]
        for kind, images in kinds.items():
            before = own_rate(path, images, folder)
            service = Service(path)
            asyncio.run(load(service.port, images, 32, 3))
            served, _ = asyncio.run(load(service.port, images, 32, SECONDS))
            _, taken = asyncio.run(load(service.port, images, 8, SECONDS))
            _, alone = asyncio.run(load(service.port, images, 1, 3))
            assert service.end() == 0
            own = max(before, own_rate(path, images, folder))
            p50, p99 = 1000 * np.quantile(taken, [0.5, 0.99])
            print(
                f"{kind}: own {own:.0f}/s, 32 clients {served:.0f}/s = {served / own:.2f}; "
                f"8 clients p50 {p50:.0f} ms, p99 {p99:.0f} ms; alone {1000 * np.median(alone):.0f} ms",
                flush=True,
            )


def hostile_files():
    """Return what is no image, or a bad one, and more than a decoder should take."""
    good, rng = jpegs(1, 200, 300)[0], np.random.default_rng(1)
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    damaged = [bytes(rng.integers(0, 256, 3000, dtype=np.uint8)) for _ in range(5)]
    torn = [good[: len(good) // k] for k in (2, 3, 9)]
    return [b"x", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n" + bytes(500), file.getvalue(), *damaged, *torn]


async def attack(port, good, expected, bad, n, service):
    """Ask `n` times with 16 clients; return right answers, right refusals and memory over time."""
    rng = np.random.default_rng(0)
    kinds = rng.random(n) < 0.05
    state = {"next": 0, "right": 0, "refused": 0}
    memory = []

    async def one():
        client = await Client().open(port)
        while (i := state["next"]) < n:
            state["next"] += 1
            if i % (n // 20) == 0:
                memory.append(service.memory())
            if kinds[i]:
                status, said = await client.ask(bad[i % len(bad)])
                row = said["predictions"][0]
                state["refused"] += status in (413, 422) and row["label"] is None and bool(row["error"])
            else:
                status, said = await client.ask(good[i % len(good)])
                row, right = said["predictions"][0], expected[i % len(good)]
                state["right"] += (
                    row["label"] == right["label"] and abs(row["probability"] - right["probability"]) < 1e-4
                )
        client.close()

    await asyncio.gather(*(one() for _ in range(16)))
    return state["right"], state["refused"], int(kinds.sum()), memory


def refuses(port):
    """Return what a slow and an oversized request are answered."""
    found = {}
    long, slow = b"Content-Length: 99999999\r\n\r\n", b"Content-Length: 9\r\n\r\n1"
    for name, text in {"slow head": HEAD, "slow body": HEAD + slow, "oversized": HEAD + long}.items():
        with socket.create_connection(("127.0.0.1", port), 60) as line:
            line.sendall(text)
            start = time.perf_counter()
            found[name] = f"{line.recv(100)[9:12].decode()} after {time.perf_counter() - start:.1f} s"
    return found


def hostile(n=10_000):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, good, bad = model_file(folder), jpegs(64, 60, 80), hostile_files()
        files = [folder / f"{i}.jpg" for i in range(len(good))]
        for file, data in zip(files, good, strict=True):
            file.write_bytes(data)
        expected = featx.load(path).classify(files).to_dict()["predictions"]
        service = Service(path, "--timeout", "5s")
        right, refused, n_bad, memory = asyncio.run(attack(service.port, good, expected, bad, n, service))
        print(
            f"{n:,} requests: {right:,} of {n - n_bad:,} answers right, {refused:,} of {n_bad:,} hostile files refused"
        )
        print("memory, MiB:", *(round(m / 2**20) for m in memory))
        print(refuses(service.port), flush=True)
        decoders = _children(service.process.pid)
        service.end(signal.SIGKILL)
        time.sleep(1)
        left = [pid for pid in decoders if Path(f"/proc/{pid}/statm").exists()]
        again = Service(path, "--timeout", "5s")
        answers = asyncio.run(attack(again.port, good, expected, bad, 200, again))
        print(f"killed: {len(left)} processes left; again: {answers[0] + answers[1]} of 200 right, exit {again.end()}")


if __name__ == "__main__":
    {"rate": rate, "hostile": lambda n=10_000: hostile(int(n))}[sys.argv[1]](*sys.argv[2:])
