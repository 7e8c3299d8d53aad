"""The network in training: a truncated backbone with a head on it, of which a part trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featx.finetuning.blocks import Blocks, find_blocks, layer_meant

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.finetuning.settings import Settings
    from featx.recipe import Recipe, Request


class Classifier(nn.Module):
    """A backbone up to its pooled layer, and a head.

    Attributes
    ----------
    body : torch.nn.Module
        From a batch to a tuple with one tensor of rows.
    head : torch.nn.Sequential
        From rows to scores (n, k).
    """

    def __init__(self, body: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.body = body
        self.head = head

    def forward(self, batch: Tensor) -> Tensor:
        """Return scores (n, k)."""
        (rows,) = self.body(batch)
        scores: Tensor = self.head(rows)
        return scores


class Trainable:
    """Which tensors of a backbone and a head training changes, and how the modules behave meanwhile.

    Below the first module that trains nothing changes: no gradient is computed there, batch norm uses its running
    statistics and dropout is off, whatever ``freeze_bn`` says. Above it batch norm learns, statistics and all; with
    ``freeze_bn`` it keeps statistics, scale and shift.

    Attributes
    ----------
    blocks : Blocks
    start : str
        The first module that trains.
    units : list of list of str
        Modules that train, block by block from the image up.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, request: Request, settings: Settings) -> None:
        self.module: nn.Module = backbone.module
        self.blocks: Blocks = find_blocks(backbone, recipe.layer)
        self.start = self.blocks.start(
            settings.unfreeze, layer_meant(backbone, self.blocks, request, settings.unfreeze)
        )
        self.units = self.blocks.from_unit(self.start)
        self._freeze_bn = settings.freeze_bn
        self.module.requires_grad_(False)
        for parameter in self.parameters():
            parameter.requires_grad_(True)

    def parameters(self) -> list[nn.Parameter]:
        """Return the backbone's parameters that train."""
        return [parameter for block in self.units for parameter in self._of(block)]

    def used(self) -> set[str]:
        """Return the names of the backbone's parameters that the pooled layer depends on, trained or not."""
        units = set(self.blocks.flat)
        names = (name for name, _ in self.module.named_parameters(remove_duplicate=False))
        return {name for name in names if name.rpartition(".")[0] in units}

    def train(self) -> None:
        """Put the modules that train into training mode, and all others into evaluation mode.

        The root stays in evaluation mode: networks with auxiliary classifiers run them in training.
        """
        self.module.eval()
        first = self.blocks.position(self.start)
        for path, module in self.module.named_modules():
            still = self._freeze_bn and isinstance(module, _BatchNorm)
            module.training = path != "" and self.blocks.position(path) >= first and not still

    def state(self) -> dict[str, Tensor]:
        """Return every tensor of the backbone that training changes, by its name in the state dict."""
        units = {unit for block in self.units for unit in block}
        return {name: own for name, own in self.module.state_dict().items() if name.rpartition(".")[0] in units}

    def groups(self, head: nn.Module, settings: Settings) -> list[dict[str, Any]]:
        """Return the optimiser's groups of parameters; ``multiplier`` is of the learning rate.

        A block's rate is that of the block above times ``layer_decay``, and the head's its own multiple. Weight decay
        holds for matrices and filters, not for biases and normalisation.
        """
        depth = len(self.units)
        parts = [(settings.layer_decay ** (depth - i), self._of(block)) for i, block in enumerate(self.units)]
        parts.append((settings.head_lr_mult, list(head.parameters())))
        groups = []
        for multiplier, parameters in parts:
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim <= 1]
            for chosen, decay in ((matrices, settings.weight_decay), (vectors, 0.0)):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "multiplier": multiplier})
        return groups

    def _of(self, units: list[str]) -> list[nn.Parameter]:
        modules = [self.module.get_submodule(unit) for unit in units]
        learning = [m for m in modules if not (self._freeze_bn and isinstance(m, _BatchNorm))]
        return list(dict.fromkeys(p for module in learning for p in module.parameters(recurse=False)))
