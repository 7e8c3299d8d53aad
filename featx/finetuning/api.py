"""`featx.finetune`: from images to a model whose backbone has learned too."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx import backbones, extraction
from featx.backbones import scratch
from featx.backbones.weights import seeded
from featx.engines.pixels import from_pixels
from featx.errors import OptionError
from featx.extraction import Options
from featx.extraction.views import parse_views
from featx.finetuning.checkpoint import read_checkpoint, write_checkpoint
from featx.finetuning.finish import make_model
from featx.finetuning.network import Classifier, Trainable
from featx.finetuning.settings import Settings
from featx.finetuning.sources import Activations, decode
from featx.finetuning.start import fit_on_features, needs_maps, starting_weights, unfitted_head
from featx.finetuning.training import Training
from featx.finetuning.upper import cut
from featx.heads.settings import resolve_device
from featx.model import load
from featx.model.rows import choose_rows
from featx.recipe import Request

if TYPE_CHECKING:
    from torch import nn

    from featx.backbones import Backbone
    from featx.datasets import Dataset
    from featx.extraction.fill import Tick
    from featx.features import Features
    from featx.finetuning.sources import Source
    from featx.heads import ConvHead, DenseHead
    from featx.model import Model
    from featx.model.rows import Rows
    from featx.recipe import Recipe, Views

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
    freeze_bn: bool = False,
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
    tick: Tick | None = None,
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
    freeze_bn : bool
        Batch norm of the backbone keeps statistics, scale and shift. By default it learns wherever its block does.
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
    tick : callable, optional
        Called with a `featx.extraction.Progress` after each step.
    **source
        How to read `data`, as in `featx.datasets.open_dataset`.

    Returns
    -------
    Model
        Its backbone travels with it. ``report`` has the entries of `featx.fit`, and ``kind`` (``finetune`` or
        ``scratch``), ``iterations`` and ``settings``.

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
    run = Run(settings, request, dataset, cache, Options(device=device, workers=workers, max_errors=max_errors), tick)
    model = run.finetune(path, checkpoint_minutes, val=0 if none_held_out else None, test=test)
    model.report["seconds"] = round(time.perf_counter() - started, 3)
    return model


@dataclasses.dataclass(frozen=True)
class Run:
    """One call of `finetune`, its arguments sorted."""

    settings: Settings
    request: Request
    dataset: Dataset
    cache: str | Path | None
    options: Options
    tick: Tick | None

    def finetune(self, checkpoint: Path | None, minutes: float, *, val: float | None, test: bool) -> Model:
        """Train from the start or from `checkpoint`, and return the model, its report without the seconds."""
        device = resolve_device(self.options.device)
        if self.settings.precision == "fp16" and device == "cpu":
            raise OptionError("--precision fp16 needs a CUDA device; a CPU takes --precision bf16.")
        backbone, (recipe,) = backbones.resolve(self.request)
        trainable = Trainable(backbone, recipe, self.request, self.settings)
        source, body = self._source(backbone, recipe, trainable, test=test)
        rows = self._rows(source, val, test=test)
        head = self._head(recipe, np.unique(source.y[rows.train]))
        with seeded(self.settings.seed):
            network = Classifier(body, head.network_module(fitted=False))
        resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
        if resumed is None:
            self._start_head(network, head, recipe, val)
        n_parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        training = Training(network, trainable, source, rows, self.settings, device)
        identity = self._identity(recipe, source, rows)
        if resumed is not None:
            read_checkpoint(resumed, training, identity)
        save = None if checkpoint is None else lambda: write_checkpoint(checkpoint, training, identity)
        training.run(self.tick, save, minutes)
        model = make_model(training, backbone, self.request, head, source, rows)
        model.report.update(
            kind="scratch" if self.request.weights == "none" else "finetune",
            dataset=self.dataset.name,
            n_parameters=n_parameters,
            errors=len(source.errors),
            settings=self.settings.to_dict(),
            temperature=model.calibration.temperature,
            scale="none",
        )
        return model

    def _source(
        self, backbone: Backbone, recipe: Recipe, trainable: Trainable, *, test: bool
    ) -> tuple[Source, nn.Module]:
        """Return where batches come from, and the network from there up to the head."""
        if not self.settings.from_cache:
            folder = extraction.open_store(self.cache).root
            images = decode(self.dataset, recipe.frame, self.options, folder, test=test, tick=self.tick)
            images.augmentation, images.seed = self.settings.augmentation, self.settings.seed
            return images, from_pixels(backbone, [recipe])
        layer, upper = cut(backbone, recipe, trainable)
        views = parse_views(self.settings.views, self.settings.augment or None, self.settings.seed)
        return Activations(self._table(dataclasses.replace(self.request, layers=(layer,), pool="none"), views)), upper

    def _table(self, request: Request, views: Views | None = None) -> Features:
        """Return features of the frozen backbone, from the cache where it has them."""
        (table,) = extraction.run(
            self.dataset, request, cache=self.cache, options=self.options, tick=self.tick, views=views
        ).tables
        return table

    def _rows(self, source: Source, val: float | None, *, test: bool) -> Rows:
        rows = choose_rows(source, val, self.settings.seed)
        if test and not len(rows.test):
            raise OptionError("--test needs a test split, and the data have none. Leave out --test.")
        if self.settings.regimen.watches_validation and not len(rows.val):
            raise OptionError(
                f"--monitor {self.settings.monitor} needs validation rows, and there are none. Give --val 0.1, or "
                "--monitor loss"
            )
        return rows

    def _head(self, recipe: Recipe, classes: np.ndarray) -> DenseHead | ConvHead:
        head = unfitted_head(self.settings.head_layers, self.settings.seed)
        head.classes_, head.row_shape_ = classes, recipe.shape
        head.n_features_in_ = int(np.prod(recipe.shape))
        return head

    def _start_head(self, network: Classifier, head: DenseHead | ConvHead, recipe: Recipe, val: float | None) -> None:
        """Put the weights into the network's head that fine-tuning starts from."""
        init = self.settings.init_head
        if init == "none" or (init == "auto" and self.request.weights == "none"):
            return
        if init == "auto":
            model = fit_on_features(
                self._table(self.request), self.settings.head_layers, val=val, seed=self.settings.seed
            )
        else:
            model = load(init)
            if model.recipe != recipe:
                raise OptionError(f"--init-head {init} was fitted on other features than this backbone's. {_SAME}")
        state = starting_weights(model, head)
        network.head.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)

    def _identity(self, recipe: Recipe, source: Source, rows: Rows) -> dict[str, Any]:
        """Return what makes this run this run, by the names that users know."""
        data = hashlib.sha256()
        for part in (rows.train, rows.val):
            data.update(source.item_ids[part].tobytes() + source.y[part].tobytes())
        options = {f"--{name.replace('_', '-')}": value for name, value in self.settings.to_dict().items()}
        return options | {"the backbone": recipe.to_json(), "the data": data.hexdigest()[:16]}


_SAME = "Extract with the same options and fit it again, or type --init-head auto"


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
