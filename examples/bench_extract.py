"""How fast features come, side by side in one run: engines, the whole line, and what else one could use.

    python examples/bench_extract.py                                  # images made here; about 20 minutes
    python examples/bench_extract.py --small cifar10/ --photos flowers/
    python examples/bench_extract.py --only vgg --rounds 9 --json

Sections
  efficientnet  efficientnet_lite0 at 224, with its ImageNet weights: forward alone, and from JPEGs of
                32 × 32 (--small) and of about 500 × 375 (--photos) to a table
  resnet        resnet50 at 224, seeded random weights: the same from --small
  vgg           vgg16 ``block3_pool`` at 32, truncated, against all of the network without its classifier
  resize        Pillow's bicubic resize and crop, and the compiled one with the same pixels, on one core

Every contestant has the same images and the same float32 weights, and takes turns with the others;
what is printed is the median over the rounds of its rate, and of its rate over that of the reference
in the same round. ``max|Δ|`` is against the plain eager loop, over its largest value. "of the limit"
holds floating-point operations a second against a 2048-cubed matrix product, measured in turn with
the others.

Expected on two cores: from JPEGs to a table at 5 times the plain loop (efficientnet_lite0; 2 times
for resnet50) and at 0.9 of the engine's forward alone (0.75 from photos, of which decoding and an
antialiased resize take 3 core-milliseconds together); the truncated VGG at 1.5 times the full one, and
at 1.5 times PyTorch by itself.

Peers that are installed (``pip install 'featx[bench]'``) take part. thingsvision wants other versions
of torch: it takes part from an environment of its own, ``--thingsvision ENVIRONMENT/bin/python``.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.utils.flop_counter import FlopCounterMode

from featx import backbones, extraction
from featx.engines import open_engine
from featx.extraction import Options
from featx.images import decode, fit
from featx.images.resizing import Resize, by_numba, by_pillow
from featx.recipe import Frame, Request

EFFICIENTNET = Request(backbone="efficientnet_lite0")
RESNET = Request(backbone="resnet50", weights="none")
VGG = {
    "truncated": Request(backbone="vgg16", weights="none", image_size=32, layers=("block3_pool",), pool="flatten"),
    "whole": Request(backbone="vgg16", weights="none", image_size=32, layers=("block5_pool",), pool="flatten"),
}


# Images


def jpegs(n: int, width: int, height: int, detail: int) -> list[bytes]:
    """Return JPEGs of smooth random colours with some grain, about as large as photos of that size."""
    rng, images = np.random.default_rng(0), []
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (detail, detail, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "jpeg", quality=90)
        images.append(file.getvalue())
    return images


def encoded(source: str | None, n: int, width: int, height: int, detail: int) -> list[bytes]:
    """Return the first `n` images of a dataset as they are, or `n` that are made here."""
    if source is None:
        return jpegs(n, width, height, detail)
    dataset = extraction.open_dataset(source)
    return [data for _, data in dataset.iterate(np.arange(min(n, len(dataset))))]


def write(images: list[bytes], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i, data in enumerate(images):
        (folder / f"{i:05d}.jpg").write_bytes(data)
    return folder


# Contestants

Turn = Callable[[], tuple[int, float]]


@dataclass
class Contestant:
    """Someone who takes turns.

    `turn` works for a while and returns (images, seconds).
    """

    turn: Turn
    gflop: float | None = None
    features: np.ndarray | None = None
    rates: list[float] = field(default_factory=list)


def repeatedly(work: Callable[[], object], n: int, seconds: float) -> tuple[int, float]:
    """Do `work` on `n` images again and again for some seconds."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        work()
        done += n
    return done, elapsed


def product(seconds: float) -> Turn:
    """Multiply matrices: what the processor gives to whoever keeps it busy. Its "images" are GFLOPs."""
    A, B = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return lambda: repeatedly(lambda: A @ B, round(2 * 2048**3 / 1e9), seconds)


def forward(request: Request, engine: str, networks: Path, seconds: float) -> Contestant:
    """Run the network alone, on pixels that are there already."""
    backbone, recipes = backbones.resolve(request)
    opened = open_engine(backbone, recipes, engine=engine, device="cpu", networks=networks)
    frame = recipes[0].frame
    shape = (opened.batch_size, frame.height, frame.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    opened.run(pixels)
    work = partial(repeatedly, lambda: opened.run(pixels), len(pixels), seconds)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.network(recipes)(torch.zeros(1, 3, frame.height, frame.width))
    return Contestant(work, gflop=counter.get_total_flops() / 1e9)


def plain_forward(request: Request, n: int, seconds: float) -> Contestant:
    """Run the truncated network as PyTorch runs it by itself, on `n` float images in memory order (n, 3, h, w)."""
    backbone, recipes = backbones.resolve(request)
    network, frame = backbone.network(recipes), recipes[0].frame
    images = torch.randn(n, 3, frame.height, frame.width)

    def work() -> None:
        with torch.no_grad():
            network(images)

    work()
    return Contestant(partial(repeatedly, work, n, seconds))


def whole_line(request: Request, images: Path, cache: Path, networks: Path) -> Contestant:
    """Extract from files to rows in the cache; opening the network is counted for nobody here."""
    networks.mkdir(exist_ok=True)
    cache.mkdir(parents=True)
    os.environ["FEATX_NETWORKS"] = str(networks)
    dataset, how = extraction.open_dataset(images), Options(engine="openvino", refresh=True)

    def turn() -> tuple[int, float]:
        done = extraction.run(dataset, request, cache=cache, options=how)
        contestant.features = done.tables[0].X
        return done.computed, done.computed / done.images_per_second

    contestant = Contestant(turn)
    return contestant


class Files(torch.utils.data.Dataset):
    """What most people write: files, decoded and transformed one by one."""

    def __init__(self, folder: Path, transform: Callable) -> None:
        self.paths, self.transform = sorted(folder.iterdir()), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as image:
            return self.transform(image.convert("RGB"))


def plain_loop(module: torch.nn.Module, transform: Callable, images: Path, n: int) -> Contestant:
    """Run the eager network on batches of 32 from a DataLoader with two workers."""
    dataset = torch.utils.data.Subset(Files(images, transform), range(n))

    def turn() -> tuple[int, float]:
        start, rows = time.perf_counter(), []
        loader = torch.utils.data.DataLoader(dataset, batch_size=32, num_workers=2)
        with torch.no_grad():
            rows = [module(batch) for batch in loader]
        contestant.features = torch.cat(rows).numpy()
        return n, time.perf_counter() - start

    contestant = Contestant(turn)
    return contestant


def one_by_one(encode: Callable[[list[Image.Image]], np.ndarray], images: Path, n: int) -> Contestant:
    """Call a library that takes Pillow images and returns rows."""
    paths = sorted(images.iterdir())[:n]

    def turn() -> tuple[int, float]:
        start = time.perf_counter()
        contestant.features = encode([Image.open(path).convert("RGB") for path in paths])
        return n, time.perf_counter() - start

    contestant = Contestant(turn)
    return contestant


def embetter(module: torch.nn.Module) -> Callable | None:
    """Put embetter's encoder around a timm network whose weights need no download; None if it is not installed."""
    if not find_spec("embetter"):
        return None
    from embetter.vision import TimmEncoder

    with mock.patch("timm.create_model", return_value=module):
        return TimmEncoder("tf_efficientnet_lite0").transform


def img2vec(state: dict[str, torch.Tensor]) -> Callable | None:
    """Return img2vec with weights that need no download; None if it is not installed."""
    if not find_spec("img2vec_pytorch"):
        return None
    import img2vec_pytorch.img_to_vec as library

    def resnet50(**_: object) -> torch.nn.Module:
        module = torchvision.models.resnet50(weights=None)
        module.load_state_dict(state)
        return module

    with mock.patch.object(library, "resnet50", resnet50):
        encoder = library.Img2Vec(model="resnet50", layer_output_size=2048)
    return encoder.get_vec


def serve_thingsvision(images: str, weights: str, rows: str) -> None:
    """Extract once for every line on stdin, and answer with the seconds. Runs where featx is not installed."""
    import contextlib
    import sys
    import time

    import numpy as np
    import timm
    import torch
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        extractor = get_extractor("tf_efficientnet_lite0", source="timm", device="cpu", pretrained=False)
        extractor.model.load_state_dict(torch.load(weights))
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=extractor.model))
        backend = extractor.get_backend()
        for _ in sys.stdin:
            start = time.perf_counter()
            dataset = ImageDataset(root=images, out_path=rows, backend=backend, transforms=transform)
            batches = DataLoader(dataset=dataset, batch_size=32, backend=backend)
            features = extractor.extract_features(batches=batches, module_name="global_pool", flatten_acts=True)
            seconds = time.perf_counter() - start
            np.save(f"{rows}/rows.npy", features)
            print(seconds, file=answers, flush=True)


def thingsvision(python: str, images: Path, folder: Path, n: int) -> Contestant:
    """Keep thingsvision open in the environment of that Python, and give it turns."""
    few = write([path.read_bytes() for path in sorted(images.iterdir())[:n]], folder / "images")
    torch.save(backbones.resolve(EFFICIENTNET)[0].module.state_dict(), folder / "weights.pt")
    source = f"{inspect.getsource(serve_thingsvision)}\nserve_thingsvision({str(few)!r}, 'weights.pt', '.')"
    pipe, log = subprocess.PIPE, folder / "log"
    peer = subprocess.Popen(
        [python, "-c", source], cwd=folder, text=True, stdin=pipe, stdout=pipe, stderr=log.open("w")
    )

    def turn() -> tuple[int, float]:
        with contextlib.suppress(BrokenPipeError):
            print(file=peer.stdin, flush=True)
        answer = peer.stdout.readline()
        if not answer:
            raise SystemExit(f"thingsvision gave up:\n{log.read_text()}")
        contestant.features = np.load(folder / "rows.npy")
        return n, float(answer)

    contestant = Contestant(turn)
    return contestant


# Sections: contestants by name; the first is the reference


def efficientnet(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Contestant]]]:
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    state = backbones.resolve(EFFICIENTNET)[0].module.state_dict()
    module.load_state_dict({key: value for key, value in state.items() if not key.startswith("classifier.")})
    transform = create_transform(**resolve_data_config({}, model=module))
    networks = folder / "networks"
    for name, source, size in [("small", args.small, (32, 32, 8)), ("photos", args.photos, (500, 375, 24))]:
        images = write(encoded(source, args.images, *size), folder / "efficientnet" / name)
        contestants = {
            "plain loop": plain_loop(module, transform, images, args.few),
            "featx": whole_line(EFFICIENTNET, images, folder / "cache" / name, networks),
            "openvino forward alone": forward(EFFICIENTNET, "openvino", networks, args.seconds),
            "eager forward alone": forward(EFFICIENTNET, "eager", networks, args.seconds),
            "matrix product": Contestant(product(args.seconds / 2), gflop=1.0),
        }
        encode = embetter(module)
        if encode:
            contestants["embetter"] = one_by_one(encode, images, args.few // 2)
        if args.thingsvision:
            own = folder / "thingsvision" / name
            contestants["thingsvision"] = thingsvision(args.thingsvision, images, own, args.few // 2)
        yield f"efficientnet_lite0 @224 from {name} JPEGs", contestants


def resnet(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Contestant]]]:
    state = backbones.resolve(RESNET)[0].module.state_dict()
    module = torchvision.models.resnet50(weights=None)
    module.load_state_dict(state)
    module.fc = torch.nn.Identity()
    transform = torchvision.models.ResNet50_Weights.DEFAULT.transforms()
    networks, images = folder / "networks", write(encoded(args.small, args.few * 2, 32, 32, 8), folder / "resnet")
    contestants = {
        "plain loop": plain_loop(module.eval(), transform, images, args.few),
        "featx": whole_line(RESNET, images, folder / "cache" / "resnet", networks),
        "openvino forward alone": forward(RESNET, "openvino", networks, args.seconds),
        "eager forward alone": forward(RESNET, "eager", networks, args.seconds),
        "matrix product": Contestant(product(args.seconds / 2), gflop=1.0),
    }
    encode = img2vec(state)
    if encode:  # it squashes instead of cropping: its features are of other pixels
        contestants["img2vec (other crop)"] = one_by_one(encode, images, args.few // 2)
    yield "resnet50 @224 from small JPEGs", contestants


def vgg(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, dict[str, Contestant]]]:
    networks = folder / "networks"
    yield (
        "vgg16 @32, forward alone",
        {
            "PyTorch by itself, truncated": plain_forward(VGG["truncated"], 256, args.seconds),
            "eager, truncated after block3_pool": forward(VGG["truncated"], "eager", networks, args.seconds),
            "openvino, truncated after block3_pool": forward(VGG["truncated"], "openvino", networks, args.seconds),
            "openvino, without classifier": forward(VGG["whole"], "openvino", networks, args.seconds),
            "matrix product": Contestant(product(args.seconds / 2), gflop=1.0),
        },
    )


def fitting(images: list[Image.Image], resize: Resize, args: argparse.Namespace) -> Contestant:
    frame = Frame(height=224, width=224, resize="crop", shorter=256, interpolation="bicubic")

    def work() -> list[np.ndarray]:
        return [fit(image, frame, resize) for image in images]

    return Contestant(partial(repeatedly, work, len(images), args.seconds), features=np.stack(work()).astype(float))


def resize(args: argparse.Namespace, _: Path) -> Iterator[tuple[str, dict[str, Contestant]]]:
    for name, source, size in [("small", args.small, (32, 32, 8)), ("photos", args.photos, (500, 375, 24))]:
        pixels = [decode(data) for data in encoded(source, args.few, *size)]
        contestants = {"Pillow": fitting(pixels, by_pillow, args), "compiled": fitting(pixels, by_numba, args)}
        yield f"resize and crop to 224 of {name} images", contestants


SECTIONS = {"efficientnet": efficientnet, "resnet": resnet, "vgg": vgg, "resize": resize}


# Report


def report(contestants: dict[str, Contestant]) -> list[dict]:
    """Return a row a contestant: medians over the rounds."""
    reference = next(iter(contestants.values()))
    limit = contestants["matrix product"].rates if "matrix product" in contestants else reference.rates
    rows = []
    for name, contestant in contestants.items():
        pairs = partial(zip, contestant.rates, strict=True)
        row = {
            "name": name,
            "images_per_second": statistics.median(contestant.rates),
            "ratio": statistics.median(rate / other for rate, other in pairs(reference.rates)),
            "of_the_limit": None,
            "max_difference": None,
        }
        if contestant.gflop:
            row["of_the_limit"] = statistics.median(contestant.gflop * rate / most for rate, most in pairs(limit))
        if contestant.features is not None and reference.features is not None and contestant is not reference:
            row["max_difference"] = difference(contestant.features, reference.features)
        rows.append(row)
    return rows


def difference(rows: np.ndarray, expected: np.ndarray) -> float:
    n = min(len(rows), len(expected))
    rows, expected = np.asarray(rows[:n]).reshape(n, -1), expected[:n].reshape(n, -1)
    return float(np.abs(rows - expected).max() / np.abs(expected).max())


def shown(title: str, rows: list[dict]) -> str:
    lines = [f"\n{title}", f"{'':40}{'images/s':>10}{'ratio':>8}{'of limit':>10}{'max|Δ|':>10}"]
    for row in rows:
        share = "" if row["of_the_limit"] is None else f"{row['of_the_limit']:.2f}"
        apart = "" if row["max_difference"] is None else f"{row['max_difference']:.0e}"
        unit = " GFLOP/s" if row["name"] == "matrix product" else ""
        lines.append(
            f"{row['name'] + unit:40}{row['images_per_second']:10.1f}{row['ratio']:8.2f}{share:>10}{apart:>10}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; all by default")
    parser.add_argument("--small", help="a dataset of small images, such as CIFAR-10; made here by default")
    parser.add_argument("--photos", help="a dataset of photos; made here by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each forward in each round")
    parser.add_argument("--images", type=int, default=4096, help="that featx extracts in each round")
    parser.add_argument("--few", type=int, default=128, help="that slow contestants get in each round")
    parser.add_argument("--thingsvision", metavar="PYTHON", help="of an environment where thingsvision is installed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for section in args.only or SECTIONS:
            for title, contestants in SECTIONS[section](args, Path(temporary)):
                for _ in range(args.rounds):
                    for contestant in contestants.values():
                        n, seconds = contestant.turn()
                        contestant.rates.append(n / seconds)
                results[title] = report(contestants)
                if not args.json:
                    print(shown(title, results[title]), flush=True)
    if args.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
