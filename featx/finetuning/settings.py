"""Settings of fine-tuning: what ``featx finetune``, `featx.finetune` and `FineTuneClassifier` can be told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.augment import Augmentation
from featx.datasets import Source, ValidationOptions, open_dataset
from featx.datasets.dataset import Dataset
from featx.errors import OptionError
from featx.extraction import ErrorOptions, MachineOptions, Options
from featx.heads.training import MONITORS, OPTIMIZERS, TrainConfig
from featx.progress import OnProgress
from featx.recipe import PRECISIONS, LayerOptions, PreprocessingOptions, Request
from featx.settings import Seeded, check, option, part_of
from featx.targets import check_classes, check_images

#: Settings of a single network and run: what trains several gives each of them its own.
INDIVIDUAL = ("backbone", "seed")
SCHEDULES = ("cosine", "plateau", "none")


@dataclass(frozen=True, kw_only=True)
class Settings(Seeded):
    """How a network is fine-tuned. Two runs with equal settings, data and weights make equal steps."""

    head_layers: str | None = option(
        None,
        'Layers before the last dense one, as "bn gap 256 relu drop.5". Default: none, and for a scratch/… network '
        "its own.",
        metavar="SPEC",
    )
    unfreeze: int | str = option(
        "all",
        "What trains beside the head: all, so many of the last blocks, or everything from a layer on. What lies below "
        "runs without gradients and in evaluation mode.",
        metavar="all|N|LAYER",
    )
    from_cache: bool = option(False, "Frozen blocks never run again: their output is in the cache, or put there first.")
    views: int = option(
        1,
        "With --from-cache and --augment: views of each training image in the cache, shown one an epoch in turn.",
        metavar="N",
        least=1,
        most=1000,
    )
    init_head: str | Path = option(
        "auto",
        "Where the head starts: fitted on the frozen features (auto; LP-FT, Kumar et al. 2022), at random (none), or a "
        "model file with a head of the same form.",
        metavar="MODEL|auto|none",
    )
    freeze_bn: bool | None = option(
        None,
        "Batch norm keeps statistics, scale and shift. Default: where weights are pretrained, as small batches of "
        "other images would change the features that the head was fitted on.",
        flags=("--freeze-bn/--train-bn",),
    )
    optimizer: str = option("adamw", "What makes steps of gradients; sgd has plain momentum.", choices=OPTIMIZERS)
    lr: float = option(1e-4, "Learning rate.", metavar="R", above=0)
    eps: float | None = option(
        None, "Of the Adam family; Keras has 1e-7. Default: torch's 1e-8.", metavar="E", least=0, most=1
    )
    momentum: float = option(0.9, "For sgd.", metavar="M", least=0, most=1)
    weight_decay: float | None = option(
        None,
        "Of matrices and filters, never of biases. Default: 0.01 for adamw, else 0.",
        metavar="W",
        least=0,
    )
    head_lr_mult: float = option(1.0, "The head's learning rate is --lr times this.", metavar="F", least=0)
    layer_decay: float = option(
        1.0, "Each block's learning rate is that of the one above times this.", metavar="F", above=0, most=1
    )
    batch_size: int = option(32, "Images a forward.", metavar="N", least=2)
    accumulate: int = option(1, "Forwards an update.", metavar="N", least=1)
    epochs: int = option(10, "At most.", metavar="N", least=1)
    schedule: str = option(
        "cosine", "How the learning rate falls; plateau: times --factor, as in Keras.", choices=SCHEDULES
    )
    factor: float = option(0.1, "Of the learning rate, at a plateau.", metavar="F", above=0, most=1)
    patience: int = option(3, "Epochs without improvement of --monitor that make a plateau.", metavar="N", least=1)
    min_lr: float = option(0.0, "The learning rate falls no lower.", metavar="R", least=0)
    warmup: float = option(0.0, "Epochs in which the learning rate rises first.", metavar="EPOCHS", least=0)
    early_stop: int = option(
        0,
        "End after so many epochs without improvement of --monitor; 0 for never.",
        metavar="N",
        least=0,
    )
    min_delta: float = option(0.0, "Less is no improvement.", metavar="D", least=0)
    monitor: str = option(
        "val_accuracy",
        "Its best epoch gives the model its weights, wherever there are validation rows.",
        choices=MONITORS,
    )
    augment: str = option(
        "", 'Changes of training images, drawn anew in every epoch, as "flip,rotate=2,zoom=0.1".', metavar="SPEC"
    )
    precision: str = option(
        "fp32", "Of products in training; weights and predictions are fp32 in any case.", choices=PRECISIONS
    )

    def __post_init__(self) -> None:
        check(self)
        if self.warmup >= self.epochs:
            raise OptionError(f"--warmup {self.warmup:g} leaves none of {self.epochs} epochs. Make it shorter.")
        if self.views > 1 and not self.from_cache:
            raise OptionError("--views go with --from-cache; else every epoch draws anew. Leave it out.")
        self.augmentation  # noqa: B018 - what it cannot take is refused here and not at the first step

    @property
    def config(self) -> TrainConfig:
        """These settings as those of any network's training; their ``patience`` is of a plateau."""
        names = {field.name for field in dataclasses.fields(Settings)} & {
            f.name for f in dataclasses.fields(TrainConfig)
        }
        own = {name: getattr(self, name) for name in names - {"patience"}}
        if self.weight_decay is None:
            own["weight_decay"] = 1e-2 if self.optimizer == "adamw" else 0.0
        stop = self.early_stop > 0
        return TrainConfig(**own, plateau_patience=self.patience, early_stopping=stop, patience=max(1, self.early_stop))

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed."""
        return Augmentation.parse(self.augment)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}


def needs_maps(layers: str) -> bool:
    """Whether a stack begins on a map that is not pooled."""
    from featx.heads.layers import FOR_MAPS, parse_layers

    return any(layer.kind in FOR_MAPS for layer in parse_layers(layers))


def head_name(backbone: str, layers: str | None) -> str:
    """Return what the layers that are trained behind a backbone are called.

    Examples
    --------
    >>> head_name("vgg16", None), head_name("vgg16", "256 relu"), head_name("scratch/leaky", None)
    ('one dense layer', 'layers 256 relu', 'its own layers')
    """
    own = _own_layers(backbone)
    if layers and layers != own:
        return f"layers {layers}"
    return "its own layers" if own else "one dense layer"


def _own_layers(backbone: str) -> str:
    from featx.backbones import scratch

    return scratch.head_layers(backbone) if backbone.startswith("scratch/") else ""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings(Settings, PreprocessingOptions, LayerOptions):
    """Which network is trained on what input, and how: all that decides what comes out, beside the data."""

    @property
    def settings(self) -> Settings:
        """How it is trained, with what was left open decided."""
        return dataclasses.replace(
            part_of(Settings, self),
            head_layers=_own_layers(self.backbone) if self.head_layers is None else self.head_layers,
            unfreeze=str(self.unfreeze),
            init_head=str(self.init_head),
            weight_decay=self.config.weight_decay,
            freeze_bn=self.weights != "none" if self.freeze_bn is None else self.freeze_bn,
        )

    @property
    def request(self) -> Request:
        """The network and its input; a layer left without a pooling is pooled as the head's layers need it."""
        shared = set(Request.__dataclass_fields__) - {"layers", "pool", "precision", "dtype"}
        layers, pool = self.settings.head_layers or "", self.pool
        if pool == "auto":
            pool = "flatten" if layers.split()[:1] == ["flat"] else "none" if needs_maps(layers) else "auto"
        named = {name: getattr(self, name) for name in shared}
        return Request(**named, layers=Request.named(self.layer), pool=pool).check_one("Fine-tuning")


@dataclass(frozen=True, kw_only=True)
class EstimatorSettings(ValidationOptions, MachineOptions, NetworkSettings):
    """The parameters of `FineTuneClassifier`."""

    cache: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class FineTune(Source, ErrorOptions, EstimatorSettings):
    """All that ``featx finetune`` and `featx.finetune` can be told."""

    test: bool = option(False, "Report the test split as well. It never chooses anything.")
    resume: bool = option(False, "Go on where the same command was killed.")
    checkpoint_minutes: float = option(5.0, "Between two checkpoints in an epoch.", metavar="MINUTES", least=0)
    checkpoint: str | Path | None = None
    on_progress: OnProgress | None = None

    @property
    def holds_out(self) -> bool:
        """Whether rows may choose; ``val=0`` means none."""
        return str(self.val) not in ("0", "0.0")

    @property
    def options(self) -> Options:
        """How images are read, and features of the frozen backbone computed."""
        return Options(device=self.device, workers=self.workers, max_errors=self.max_errors)

    def open(self, data: Any) -> Dataset:
        """List the images of `data`, with validation rows where a share was asked for."""
        how = part_of(Source, self)
        dataset = open_dataset(data, **vars(how if self.holds_out else dataclasses.replace(how, val=None)))
        check_classes(dataset.task, "Fine-tuning")
        check_images(dataset.items, "Fine-tuning")
        return dataset
