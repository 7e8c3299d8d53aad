"""`Settings`: how a network is fine-tuned. Two runs with equal settings, data and weights make equal steps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from featx.augment import Augmentation
from featx.errors import OptionError
from featx.heads.training import Regimen
from featx.recipe import PRECISIONS
from featx.settings import check_choice, check_number

SCHEDULES = ("cosine", "plateau", "none")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is fine-tuned; `featx.finetune` documents each of them."""

    head_layers: str = ""
    unfreeze: str = "all"
    from_cache: bool = False
    views: int = 1
    init_head: str = "auto"
    freeze_bn: bool = False
    optimizer: str = "adamw"
    lr: float = 1e-4
    eps: float | None = None
    momentum: float = 0.9
    weight_decay: float = 1e-2
    head_lr_mult: float = 1.0
    layer_decay: float = 1.0
    batch_size: int = 32
    accumulate: int = 1
    epochs: int = 10
    schedule: str = "cosine"
    factor: float = 0.1
    patience: int = 3
    min_lr: float = 0.0
    warmup: float = 0.0
    early_stop: int = 0
    min_delta: float = 0.0
    monitor: str = "val_accuracy"
    augment: str = ""
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("--schedule", self.schedule, SCHEDULES)
        check_choice("--precision", self.precision, PRECISIONS)
        check_number("--head-lr-mult", self.head_lr_mult, least=0)
        check_number("--layer-decay", self.layer_decay, above=0, most=1)
        check_number("--accumulate", self.accumulate, least=1, whole=True)
        check_number("--epochs", self.epochs, least=1, whole=True)
        check_number("--warmup", self.warmup, least=0)
        check_number("--early-stop", self.early_stop, least=0, whole=True)
        if self.warmup >= self.epochs:
            raise OptionError(f"--warmup {self.warmup:g} leaves none of {self.epochs} epochs. Make it shorter.")
        check_number("--views", self.views, least=1, whole=True)
        if self.views > 1 and not self.from_cache:
            raise OptionError("--views go with --from-cache; else every epoch draws anew. Leave it out.")
        self.regimen, self.augmentation  # noqa: B018 - what they cannot take is refused here and not at the first step

    @property
    def regimen(self) -> Regimen:
        """What these settings have in common with those of a dense head."""
        own = {name: getattr(self, name) for name in _SHARED}
        return Regimen(
            **own,
            plateau_patience=self.patience,
            early_stopping=self.early_stop > 0,
            patience=max(1, self.early_stop),
            label_smoothing=0.0,
            precision="fp32",
        )

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed."""
        return Augmentation.parse(self.augment)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return dataclasses.asdict(self)


#: Settings that mean the same in a `Regimen`.
_SHARED = (
    "optimizer", "lr", "weight_decay", "momentum", "eps", "epochs", "batch_size", "schedule", "factor", "min_lr",
    "min_delta", "monitor",
)  # fmt: skip
