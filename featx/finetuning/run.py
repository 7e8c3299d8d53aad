"""One run of fine-tuning, from a request and a dataset to a model."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx import backbones, extraction
from featx.backbones.weights import seeded
from featx.devices import arithmetic, resolve_device
from featx.engines.pytorch import from_pixels
from featx.errors import OptionError
from featx.extraction import parse_views
from featx.finetuning.finish import make_model
from featx.finetuning.network import Classifier, Trainable, cut
from featx.finetuning.sources import Activations, decode
from featx.finetuning.start import fit_on_features, starting_weights, unfitted_head
from featx.finetuning.training import SourceBatches, make_trainer, read_checkpoint, write_checkpoint
from featx.model import load
from featx.model.rows import choose_rows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from featx.backbones import Backbone
    from featx.datasets import Dataset
    from featx.features import Features
    from featx.finetuning.settings import FineTune
    from featx.finetuning.sources import BatchSource
    from featx.heads import ConvHead, DenseHead
    from featx.model import Model
    from featx.model.rows import Parts
    from featx.recipe import Recipe, Request, Views


class FineTuning:
    """One call of `featx.finetune`.

    Parameters
    ----------
    asked : FineTune
    dataset : Dataset
    """

    def __init__(self, asked: FineTune, dataset: Dataset) -> None:
        self.asked, self.dataset = asked, dataset
        self.settings, self.request, self.options = asked.settings, asked.request, asked.options
        self.layers = self.settings.head_layers or ""

    def finetune(self, checkpoint: Path | None) -> Model:
        """Train from the start or from `checkpoint`, and return the model, its report without the seconds."""
        device = resolve_device(self.options.device)
        if self.settings.precision == "fp16" and device == "cpu":
            raise OptionError("--precision fp16 needs a CUDA device; a CPU takes --precision bf16.")
        backbone, (recipe,) = backbones.resolve(self.request)
        trainable = Trainable(backbone, recipe, self.request, self.settings)
        source, body = self._source(backbone, recipe, trainable)
        rows = self._rows(source)
        head = self._head(recipe, np.unique(source.y[rows.train]))
        with seeded(self.settings.seed):
            network = Classifier(body, head.network_module(fitted=False))
        resumed = checkpoint if checkpoint is not None and checkpoint.exists() else None
        if resumed is None:
            self._start_head(network, head, recipe)
        n_parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
        network.to(device).to(memory_format=source.memory_format)
        batches = SourceBatches(source, rows, self.settings, device)
        trainer = make_trainer(network, trainable, batches, self.settings)
        identity = self._identity(recipe, source, rows)
        if resumed is not None:
            read_checkpoint(resumed, trainer, identity)
        save = None if checkpoint is None else lambda: write_checkpoint(checkpoint, trainer, identity)
        with arithmetic(torch.device(device), "tf32" if self.settings.precision == "tf32" else "fp32"):
            trainer.run(self.asked.on_progress, save, 60 * self.asked.checkpoint_minutes)
        model = make_model(trainer, trainable, head, self.asked, source, rows)
        return model.with_report(
            kind="scratch" if self.request.weights == "none" else "finetune",
            dataset=self.dataset.name,
            source=dict(self.dataset.source),
            n_parameters=n_parameters,
            errors=len(source.errors),
            settings=self.settings.to_dict(),
        )

    @property
    def _val(self) -> float | None:
        """What `choose_rows` is told: the data have their validation rows by now, if they are to have any."""
        return None if self.asked.holds_out else 0

    def _source(self, backbone: Backbone, recipe: Recipe, trainable: Trainable) -> tuple[BatchSource, nn.Module]:
        """Return where batches come from, and the network from there up to the head."""
        if not self.settings.from_cache:
            folder = extraction.open_store(self.asked.cache).root
            images = decode(
                self.dataset,
                recipe.frame,
                self.options,
                folder,
                test=self.asked.test,
                on_progress=self.asked.on_progress,
            )
            images.augmentation, images.seed = self.settings.augmentation, self.settings.seed
            return images, from_pixels(backbone, [recipe])
        layer, upper = cut(backbone, recipe, trainable)
        views = parse_views(self.settings.views, self.settings.augment or None, self.settings.seed)
        return Activations(self._table(dataclasses.replace(self.request, layers=(layer,), pool="none"), views)), upper

    def _table(self, request: Request, views: Views | None = None) -> Features:
        """Return features of the frozen backbone, from the cache where it has them."""
        (table,) = extraction.run(
            self.dataset,
            request,
            cache=self.asked.cache,
            options=self.options,
            on_progress=self.asked.on_progress,
            views=views,
            remember=False,
        ).tables
        return table

    def _rows(self, source: BatchSource) -> Parts:
        rows = choose_rows(source, self._val, self.settings.seed)
        if self.asked.test and not len(rows.test):
            raise OptionError("--test needs a test split, and the data have none. Leave out --test.")
        if self.settings.config.watches_validation and not len(rows.val):
            raise OptionError(
                f"--monitor {self.settings.monitor} needs validation rows, and there are none. Give --val 0.1, or "
                "--monitor loss"
            )
        return rows if self.asked.test else dataclasses.replace(rows, test=rows.test[:0])

    def _head(self, recipe: Recipe, classes: np.ndarray) -> DenseHead | ConvHead:
        head = unfitted_head(self.layers, self.settings.seed)
        head.classes_, head.row_shape_ = classes, recipe.shape
        head.n_features_in_ = int(np.prod(recipe.shape))
        return head

    def _start_head(self, network: Classifier, head: DenseHead | ConvHead, recipe: Recipe) -> None:
        """Put the weights into the network's head that fine-tuning starts from."""
        init = self.settings.init_head
        if init == "none" or (init == "auto" and self.request.weights == "none"):
            return
        if init == "auto":
            how: dict[str, Any] = {"val": self._val, "seed": self.settings.seed, "device": self.options.device}
            model = fit_on_features(self._table(self.request), self.layers, **how)
        else:
            model = load(init)
            if model.recipe != recipe:
                raise OptionError(
                    f"--init-head {init} was fitted on other features than this backbone's. Extract with the same "
                    "options and fit it again, or type --init-head auto"
                )
        state = starting_weights(model, head)
        network.head.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()}, strict=False)

    def _identity(self, recipe: Recipe, source: BatchSource, rows: Parts) -> dict[str, Any]:
        """Return what makes this run this run, by the names that users know."""
        data = hashlib.sha256()
        for part in (rows.train, rows.val):
            data.update(source.item_ids[part].tobytes() + source.y[part].tobytes())
        options = {f"--{name.replace('_', '-')}": value for name, value in self.settings.to_dict().items()}
        return options | {"the backbone": recipe.to_json(), "the data": data.hexdigest()[:16]}
