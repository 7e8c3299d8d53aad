"""Which engine, on which device, with which batch size, and why."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.devices import pinned, release_memory, resolve_device
from featx.engines import kept, openvino
from featx.engines.engine import Engine, check_not_forked
from featx.errors import OptionError
from featx.machine import n_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from featx.backbones import Backbone
    from featx.engines.pytorch import Compute
    from featx.recipe import Recipe

log = logging.getLogger("featx")

ENGINES = ("eager", "compile", "openvino")
#: Pixels in a batch that keep two cores busy and fit their caches: 32 images of 224 x 224. A GPU wants more.
_BATCH_PIXELS = {"cpu": 32 * 224 * 224, "cuda": 256 * 224 * 224, "mps": 32 * 224 * 224}
_SMALLEST_BATCH, _LARGEST_BATCH = 8, {"cpu": 256, "cuda": 2048, "mps": 256}
#: Seconds that a converter takes for each module of a network without others in it: 6 ms (EfficientNets) to 45 ms
#: (transformers) were measured, from AlexNet (0.3 s in all) to Swin-T (6 s).
_CONVERSION = 0.012
#: Images that openvino is tried on, so that every request is one of several; eager, which may be slow, on fewer.
_TRIAL_IMAGES, _EAGER_TRIAL_IMAGES = 16, 4
#: Not even the smallest network is worth converting for so few images.
_NEVER_WORTH_IT = 4
#: So few are not worth what makes a network faster, and each of them is a request of its own.
FEW_IMAGES = 64
#: A batch goes through openvino in requests of an eighth of the usual batch, and each core gets sixteen of them.
_REQUESTS_PER_BATCH, _REQUESTS_PER_CORE = 8, 16


def open_engine(
    backbone: Backbone | Callable[[], Backbone],
    recipes: list[Recipe],
    *,
    engine: str = "auto",
    device: str | Sequence[str] = "auto",
    batch_size: int | None = None,
    n_images: int | None = None,
    networks: Path | None = None,
    converted: Mapping[str, bytes] | None = None,
    padded: bool = True,
) -> Engine:
    """Make the engine that computes `recipes`, all in one pass.

    Parameters
    ----------
    backbone : Backbone, or a callable that returns it
        The callable is called where the network is needed: not if it was converted before, so that torch is not
        imported. A function of the user's own is always called, since nothing tells whether it changed.
    recipes : list of Recipe
        Of that backbone, from `featx.backbones.resolve`.
    engine : {"auto", "eager", "compile", "openvino"}
        ``auto`` takes eager PyTorch on CUDA, and on a CPU a network that was converted before; without one eager for
        short jobs, and for long ones whichever of it and openvino measures faster; `Engine.why` says which and why.
    device : {"auto", "cpu", "cuda", "cuda:I", "mps"}
        ``auto`` is CUDA where there is one. A device that is asked for and not there is an error, never the CPU.
        Apple's (``mps``) runs eager, at fp32 and fp16, and is held against the CPU before it is used.
        Of several CUDA devices, each takes the next batch when it is free.
    batch_size : int, optional
        Images in one forward, by default by image size; on CUDA it is halved until its memory holds one.
    n_images : int, optional
        How many images will come: a conversion must pay for itself.
    networks : Path, optional
        Folder that keeps converted networks for the next time, `featx.engines.kept.folder` as a rule.
    converted : mapping of str to bytes, optional
        Files of the network as it was converted elsewhere, by name, as `converted_files` returns them: taken where
        `networks` has none, and kept nowhere. Whoever gives them must hold what comes out against a probe.
    padded : bool
        Whether requests have one shape, as their bits depend on that: the rows of a resumed run then equal those of an
        uninterrupted one bit for bit (tier A). Without, a few images take the time of a few, and their features
        depend, within 1e-5 (tier B), on how many came together.

    Raises
    ------
    OptionError
        If the engine, the device or the precision cannot be had.

    Examples
    --------
    >>> from featx.backbones import resolve
    >>> from featx.recipe import Request
    >>> engine = open_engine(*resolve(Request(backbone="alexnet", weights="none", image_size=64)), n_images=10)
    >>> engine.name
    'eager'
    """
    check_not_forked()
    if engine not in ("auto", *ENGINES):
        raise OptionError(f"--engine must be one of auto, {', '.join(ENGINES)}; got {engine!r}.")
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"--batch-size must be at least 1, got {batch_size}.")
    named = [device] if isinstance(device, str) else device
    devices = [device_for(name, engine, recipes[0].precision) for name in named]
    job = _Job(backbone, recipes, devices, batch_size, networks, padded, n_images or 0, converted or {})
    if ":" in recipes[0].backbone:
        job.backbone  # noqa: B018 - the user's function is called
    if engine == "openvino":
        return (_found(job) if converted else None) or _converted(job, "openvino was asked for")
    if job.kind == "cuda":
        return _largest_that_fits(job, engine)
    if engine == "auto" and job.kind == "cpu":
        return _automatic(job)
    return _by_pytorch(job, engine)


@dataclass(frozen=True)
class _Job:
    """What an engine is opened for."""

    source: Backbone | Callable[[], Backbone]
    recipes: list[Recipe]
    devices: list[str]
    batch_size: int | None
    networks: Path | None
    padded: bool
    n_images: int = 0
    converted: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def backbone(self) -> Backbone:
        return self.source() if callable(self.source) else self.source

    @property
    def kind(self) -> str:
        return self.devices[0].partition(":")[0]

    @property
    def size(self) -> int:
        return self.batch_size or default_batch_size(self.recipes, self.kind)

    @property
    def converted_size(self) -> int:
        """Images in a batch of openvino's: so many that every core has a few requests, or all waits for the last."""
        usual = request_size(self.recipes, default_batch_size(self.recipes, "cpu"))
        return self.batch_size or usual * _REQUESTS_PER_CORE * n_cores()

    @property
    def together(self) -> int:
        """Images in a request of openvino's, as networks are converted for."""
        return request_size(self.recipes, self.converted_size)

    @property
    def is_brief(self) -> bool:
        return not self.padded and 0 < self.n_images <= FEW_IMAGES

    @property
    def torch_devices(self) -> list[torch.device]:
        import torch

        return [torch.device(device) for device in self.devices]


def default_batch_size(recipes: list[Recipe], device: str) -> int:
    """Return a power of two by the pixels of one image: on a CPU 32 for 224 by 224, 256 for 32 by 32."""
    pixels = recipes[0].frame.height * recipes[0].frame.width
    size = _SMALLEST_BATCH
    while size < _LARGEST_BATCH[device] and 2 * size * pixels <= 1.2 * _BATCH_PIXELS[device]:
        size *= 2
    return size


def request_size(recipes: list[Recipe], batch_size: int) -> int:
    """Return how many images of a batch go through openvino together: 4 of 224 by 224, where that divides the batch."""
    most = max(1, default_batch_size(recipes, "cpu") // _REQUESTS_PER_BATCH)
    return max(size for size in range(1, most + 1) if batch_size % size == 0)


def _by_pytorch(job: _Job, engine: str) -> Engine:
    from featx.engines.pytorch import compiled, eager, in_turn

    if engine == "compile":
        computes = [compiled(job.backbone, job.recipes, job.size, device) for device in job.torch_devices]
        return _engine(job, in_turn(computes), "compile", "compile was asked for")
    why = "eager was asked for" if engine == "eager" else f"there is a {job.kind} device"
    computes = [eager(job.backbone, job.recipes, device, briefly=job.is_brief) for device in job.torch_devices]
    if job.kind == "mps" and not _computes_as_a_cpu(computes[0], job):
        raise OptionError(
            f"{job.backbone.name} does not compute on this Apple GPU what it does on a CPU. Type --device cpu."
        )
    return _engine(job, in_turn(computes), "eager", why)


def _computes_as_a_cpu(compute: Compute, job: _Job) -> bool:
    """Whether `compute` gives what a CPU does; on Apple's GPUs operations of torch have been silently wrong."""
    import torch

    from featx.engines.pytorch import eager

    recipes = [dataclasses.replace(recipe, precision="fp32") for recipe in job.recipes]
    return openvino.agrees(compute, eager(job.backbone, recipes, torch.device("cpu")), job.recipes, 1)


def _engine(job: _Job, compute: Compute, name: str, why: str) -> Engine:
    # A GPU copies one batch while it computes another; on a CPU both would want the same cores.
    on_cuda = job.kind == "cuda"
    return Engine(
        compute,
        job.recipes,
        name=name,
        batch_size=job.size,
        why=why,
        n_at_once=2 * len(job.devices) if on_cuda else int(job.kind == "mps"),
        padded=job.padded or name == "compile",
        pinned=partial(pinned, devices=job.torch_devices) if on_cuda else contextlib.nullcontext,
    )


def _converted(job: _Job, why: str = "", plain: Compute | None = None) -> Engine:
    network = openvino.build(lambda: job.backbone, job.recipes, job.together, job.networks, plain)
    return _by_openvino(job, network, job.together, why)


def _by_openvino(job: _Job, network: openvino.CompiledNetwork, together: int, why: str) -> Engine:
    return Engine(
        network,
        job.recipes,
        name="openvino",
        batch_size=max(together, min(job.converted_size, job.n_images)) if job.is_brief else job.converted_size,
        request_size=together,
        why=why,
        n_at_once=network.n_at_once,
    )


def _found(job: _Job) -> Engine | None:
    """Open the network that was converted before, if there is one and eager was not faster; without torch."""
    found = kept.find(job.networks, openvino.decides(job.recipes, job.together)) if openvino.installed() else None
    there = not found.slower if found else bool(job.converted) and openvino.installed()
    if not there or not openvino.supports(job.recipes[0].precision):
        return None
    if found:
        return _reopened(job, found.path, "openvino has a network that was converted before")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in job.converted.items():
            (Path(folder) / name).write_bytes(content)
        return _reopened(job, Path(folder) / kept.FILES[0], "the model has the network as openvino reads it")


def _reopened(job: _Job, path: Path, why: str) -> Engine | None:
    for together in dict.fromkeys((1, job.together) if job.is_brief else (job.together,)):
        try:
            network = openvino.reopen(path, job.recipes, together)
        except (OptionError, RuntimeError):  # its graph holds for one number of images, or is of another version
            continue
        return _by_openvino(job, network, together, why)
    return None


def converted_files(backbone: Backbone, recipes: list[Recipe]) -> dict[str, bytes]:
    """Return the files of a network as openvino reads it, by name; none where that is not there, or cannot have it."""
    if not openvino.installed():
        return {}
    job = _Job(backbone, recipes, ["cpu"], None, None, padded=True)
    decides = openvino.decides(recipes, job.together)
    with tempfile.TemporaryDirectory() as folder:
        found = kept.find(kept.folder(), decides)
        if found is None:
            with contextlib.suppress(OptionError):  # it cannot be converted
                openvino.build(backbone, recipes, job.together, Path(folder))
            found = kept.find(Path(folder), decides)
        return {name: found.path.with_name(name).read_bytes() for name in kept.FILES} if found else {}


def _automatic(job: _Job) -> Engine:
    """Choose between eager and openvino on the CPU by what is there, and what each costs for the images to come."""
    if (opened := _found(job)) is not None:
        return opened
    from featx.engines.pytorch import eager

    recipes, n_images = job.recipes, job.n_images
    compute = eager(job.backbone, recipes, job.torch_devices[0], briefly=job.is_brief)

    def plain(why: str) -> Engine:
        return _engine(job, compute, "eager", why)

    if not openvino.installed():
        return plain("openvino, often several times as fast, is not installed: pip install 'featx[fast]'")
    if n_images <= _NEVER_WORTH_IT or job.is_brief:
        return plain(f"{n_images} images are too short a job for another to pay")
    if not openvino.supports(recipes[0].precision):
        return plain(f"openvino has no {recipes[0].precision} on this CPU")
    if kept.find(job.networks, openvino.decides(recipes, job.together)):
        return plain("openvino measured slower here before")
    eager_rate = _rate(compute, recipes, min(job.size, _EAGER_TRIAL_IMAGES))
    cost = _CONVERSION * sum(not any(m.children()) for m in job.backbone.module.modules())
    if n_images / eager_rate < 2 * cost:
        return plain(f"{n_images:,} images take it about {n_images / eager_rate:.0f} s, too short for another to pay")
    try:
        converted = _converted(job, plain=compute)
    except OptionError as error:
        return plain(str(error))
    openvino_rate = _rate(converted.run, recipes, _TRIAL_IMAGES)
    if openvino_rate < 2 * eager_rate:  # a close call is worth a longer look
        eager_rate = _rate(compute, recipes, min(job.size, _TRIAL_IMAGES))
    converted.why = f"openvino runs {openvino_rate:.0f} images/s here, eager {eager_rate:.0f}"
    if openvino_rate > eager_rate:
        return converted
    kept.note_slower(job.networks, openvino.decides(recipes, job.together))
    return plain(converted.why)


def gain_of_bf16(engine: Engine, recipes: list[Recipe], networks: Path | None) -> float | None:
    """Measure how many times as many images a second `engine` would compute in bf16.

    Parameters
    ----------
    engine : Engine
        At fp32, as `open_engine` made it for `recipes`.
    recipes : list of Recipe
    networks : Path or None
        The folder where its network is kept.

    Returns
    -------
    float or None
        None where this CPU has no bf16, or the engine is another than openvino.
    """
    if (engine.name, recipes[0].precision) != ("openvino", "fp32") or not openvino.supports("bf16"):
        return None
    found = kept.find(networks, openvino.decides(recipes, engine.request_size))
    if found is None:
        return None
    halves = [dataclasses.replace(recipe, precision="bf16") for recipe in recipes]
    network = openvino.reopen(found.path, halves, engine.request_size)
    other = Engine(
        network,
        halves,
        name="openvino",
        why="what bf16 would bring",
        batch_size=engine.batch_size,
        request_size=engine.request_size,
        n_at_once=network.n_at_once,
    )
    return _rate(other.run, recipes, _TRIAL_IMAGES) / _rate(engine.run, recipes, _TRIAL_IMAGES)


def _rate(compute: Compute, recipes: list[Recipe], n: int) -> float:
    """Measure images a second on `n` of them, after a pass that does not count."""
    frame = recipes[0].frame
    pixels = np.random.default_rng(0).integers(0, 256, (n, frame.height, frame.width, 3), np.uint8)
    compute(pixels)
    start = time.perf_counter()
    compute(pixels)
    return n / (time.perf_counter() - start)


def _largest_that_fits(job: _Job, engine: str) -> Engine:
    """Halve the batch until one fits the device's memory; say so where its size was asked for."""
    import torch

    from featx.engines.pytorch import blank

    asked = job.batch_size
    job = dataclasses.replace(job, batch_size=job.size)
    opened: Engine | None
    while True:
        try:
            opened = _by_pytorch(job, engine)
            for _ in job.devices:  # which take turns
                opened.run(blank(job.recipes, job.size).numpy())
        except torch.cuda.OutOfMemoryError as error:
            if job.size == 1:
                raise OptionError(
                    f"{job.backbone.name} does not fit the memory of {job.devices[0]}, not with a single image. Type "
                    "--device cpu, or --precision fp16."
                ) from error
        else:
            if asked and asked != job.size:
                log.warning("A batch of %d does not fit the memory of %s: it has %d.", asked, job.devices[0], job.size)
            return opened
        job = dataclasses.replace(job, batch_size=job.size // 2)
        opened = None
        release_memory()


def device_for(device: str, engine: str, precision: str) -> str:
    """Return the device that `device` means for that engine and precision; OptionError if they do not go together."""
    found = "cpu" if device == "auto" and engine == "openvino" else resolve_device(device, frozen=True)
    if engine == "openvino" and found != "cpu":
        raise OptionError("--engine openvino runs on the CPU. Type --device cpu, or --engine eager.")
    if found == "mps" and (engine == "compile" or precision not in ("fp32", "fp16")):
        raise OptionError("--device mps runs --engine eager in --precision fp32 or fp16. Type these, or --device cpu.")
    if precision == "tf32" and found == "cpu":
        raise OptionError("--precision tf32 needs a CUDA device. Type --precision fp32.")
    return found
