"""Backbones: networks by name, with their weights, preprocessing and layers; one truncated forward for several layers.

`load` and `resolve` take a `featx.recipe.Request`; `list_backbones` says what there is.
"""

from featx.backbones.backbone import Backbone, LayerInfo, load, resolve
from featx.backbones.own import hand_over
from featx.backbones.registry import BackboneInfo, list_backbones

__all__ = ["Backbone", "BackboneInfo", "LayerInfo", "hand_over", "list_backbones", "load", "resolve"]
