"""`featx.finetune`: from images to a model whose backbone has learned too."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx import extraction
from featx.backbones import scratch
from featx.errors import OptionError
from featx.extraction import Options
from featx.finetuning.run import Run
from featx.finetuning.settings import Settings
from featx.finetuning.start import needs_maps
from featx.recipe import Request

if TYPE_CHECKING:
    from featx.model import Model
    from featx.progress import OnProgress

_REQUEST = {field.name for field in dataclasses.fields(Request)} - {"layers", "precision", "dtype"}
_SETTINGS = {field.name for field in dataclasses.fields(Settings)}


def finetune(
    data: Any,
    *,
    backbone: str = "efficientnet_lite0",
    weights: str = "imagenet",
    layer: str | None = None,
    pool: str = "auto",
    image_size: int | None = None,
    resize: str = "weights",
    normalize: str = "weights",
    interpolation: str = "weights",
    background: str = "white",
    decode: str = "full",
    version: str | None = None,
    head_layers: str | None = None,
    unfreeze: int | str = "all",
    from_cache: bool = False,
    views: int = 1,
    init_head: str | Path = "auto",
    freeze_bn: bool | None = None,
    optimizer: str = "adamw",
    lr: float = 1e-4,
    eps: float | None = None,
    momentum: float = 0.9,
    weight_decay: float | None = None,
    head_lr_mult: float = 1.0,
    layer_decay: float = 1.0,
    batch_size: int = 32,
    accumulate: int = 1,
    epochs: int = 10,
    schedule: str = "cosine",
    factor: float = 0.1,
    patience: int = 3,
    min_lr: float = 0.0,
    warmup: float = 0.0,
    early_stop: int = 0,
    min_delta: float = 0.0,
    monitor: str = "val_accuracy",
    augment: str = "",
    val: float | str | None = None,
    test: bool = False,
    precision: str = "fp32",
    device: str = "auto",
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
    max_errors: str = "1%",
    checkpoint: str | Path | None = None,
    checkpoint_minutes: float = 5.0,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    **source: Any,
) -> Model:
    """Train a backbone, or its upper part, and a head on it, end to end.

    Parameters
    ----------
    data : path, sequence of paths or images, array or Dataset
        Labelled images, all that `featx.extract` takes.
    backbone, weights, image_size, resize, normalize, interpolation, background, decode, version
        The network and its input, as in `featx.Request`; a ``scratch/…`` network has ``weights="none"`` only.
    layer, pool : str
        What the head is put on; by default the backbone's features, unpooled for a head that begins with layers
        for maps, flattened for one that begins with ``flat``.
    head_layers : str, optional
        Layers before the last dense one, as in `featx.heads.layers`; none by default, and for a ``scratch/…``
        network its own.
    unfreeze : int or str
        What trains beside the head: ``all``, so many of the last blocks, or everything from a named layer on.
        What lies below runs without gradients and in evaluation mode.
    from_cache : bool
        Never run the frozen blocks again: their output comes from a table in the cache, which is made first where it
        is missing. The model holds the whole network all the same.
    views : int
        With `from_cache` and `augment`: so many views of each training image in the cache, the plain one included,
        shown one an epoch in turn.
    init_head : path or str
        Where the head starts: ``auto`` fits it on the frozen backbone's features first, through the cache (LP-FT,
        Kumar et al. 2022), unless the weights are random; ``none``; or a model file with a head of the same form.
    freeze_bn : bool, optional
        Batch norm of the backbone keeps statistics, scale and shift. By default it does where the weights are
        pretrained: normalised by the statistics of small batches of other images, features are no longer those
        that the head was fitted on. Where weights are random it learns with its block.
    optimizer : {"adamw", "adam", "adamax", "sgd"}
        ``sgd`` has plain momentum.
    lr, eps, momentum, weight_decay : float
        Weight decay holds for matrices and filters, not for biases and normalisation. None is torch's own: 1e-8, and
        0.01 for ``adamw``, else 0.
    head_lr_mult, layer_decay : float
        The head's learning rate is ``lr`` times the one; that of each block is the rate above it times the other.
    batch_size, accumulate : int
        Images a forward, and forwards an update.
    epochs : int
        At most.
    schedule : {"cosine", "plateau", "none"}
        ``plateau`` multiplies the rate by `factor` when `monitor` has not improved by more than `min_delta` for
        `patience` epochs, down to `min_lr`, as in Keras. Before it comes a linear `warmup` of so many epochs.
    factor, patience, min_lr, warmup : float
    early_stop : int
        Stop when `monitor` has not improved by more than `min_delta` for so many epochs; 0 for never.
    min_delta : float
    monitor : {"val_accuracy", "val_loss", "accuracy", "loss"}
        Its best epoch gives the model its weights, wherever there are validation rows.
    augment : str
        Words of `featx.augment`, for training images only; each draws anew in every epoch.
    val : float or str, optional
        Validation part of the training rows, ``0.1`` or ``last:0.1``; 0 for none. By default the data's own, else a
        tenth.
    test : bool
        Report the test split as well. It never chooses anything.
    precision : {"fp32", "tf32", "bf16", "fp16"}
        Of products in training; weights are float32, and predictions computed in fp32, in any case.
    device : {"auto", "cpu", "cuda"}
    seed : int
        Of random weights, validation rows, order, dropout and augmentation.
    cache : path, optional
        For features of the frozen backbone, and for pixels that do not fit in memory.
    workers, max_errors
        As in `featx.extraction.Options`.
    checkpoint : path, optional
        A file that is written after each epoch and every `checkpoint_minutes`; delete it once the model is saved.
    checkpoint_minutes : float
    resume : bool
        Go on from `checkpoint` if it is there. On one machine's CPU the weights come out bit for bit as without
        the interruption.
    on_progress : callable, optional
        Called with a `featx.progress.Progress` after each step.
    **source
        How to read `data`, as in `featx.datasets.open_dataset`.

    Returns
    -------
    Model
        Its backbone travels with it. ``report`` has the entries of `featx.fit`, and ``kind`` (``finetune`` or
        ``scratch``), ``iterations``, ``settings``, and the name and place of the data as ``dataset`` and ``source``.

    Raises
    ------
    DataError
        If there are no labels, no rows to train on, or one class.
    OptionError
        If a setting cannot be, or a checkpoint is there that is not to be resumed, or of another run.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    >>> model = finetune(
    ...     images, labels=["a", "b"] * 12, backbone="scratch/leaky", weights="none", epochs=1, workers=0
    ... )
    >>> model.report["n_parameters"], len(model.predict(images[:3], workers=0))
    (2103010, 3)
    """
    given = locals()
    started = time.perf_counter()
    if head_layers is None:
        given["head_layers"] = scratch.head_layers(backbone) if backbone.startswith("scratch/") else ""
    if weight_decay is None:
        given["weight_decay"] = 1e-2 if optimizer == "adamw" else 0.0
    if freeze_bn is None:
        given["freeze_bn"] = weights != "none"
    settings = Settings(
        **{name: given[name] for name in _SETTINGS} | {"unfreeze": str(unfreeze), "init_head": str(init_head)}
    )
    request = Request(
        **{name: given[name] for name in _REQUEST} | {"pool": _pool(pool, settings.head_layers)},
        layers=() if layer is None else (layer,),
    )
    none_held_out = str(val) in ("0", "0.0")
    dataset = extraction.open_dataset(data, val=None if none_held_out else val, seed=seed, **source)
    path = None if checkpoint is None else Path(checkpoint)
    _check_checkpoint(path, resume=resume)
    run = Run(
        settings, request, dataset, cache, Options(device=device, workers=workers, max_errors=max_errors), on_progress
    )
    model = run.finetune(path, checkpoint_minutes, val=0 if none_held_out else None, test=test)
    return model.with_report(seconds=round(time.perf_counter() - started, 3))


def _pool(pool: str, head_layers: str) -> str:
    """Return how the layer under the head is pooled where the user leaves it open."""
    if pool != "auto":
        return pool
    if head_layers.split()[:1] == ["flat"]:
        return "flatten"
    return "none" if needs_maps(head_layers) else "auto"


def _check_checkpoint(path: Path | None, *, resume: bool) -> None:
    if resume and path is None:
        raise OptionError("resume needs the checkpoint to go on from: checkpoint=PATH")
    if path is not None and path.exists() and not resume:
        raise OptionError(
            f"{path} is there, of a run that was not finished. Go on from it with --resume, or delete it to start anew."
        )
