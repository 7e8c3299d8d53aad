"""Fine-tuning: the network itself learns, all of it or its upper part, and comes back as an ordinary `Model`.

`finetune` does all of ``featx finetune``; `FineTuneClassifier` is the same as an estimator. Inside `run`, in the
order of the work: `settings` (how), `network` (what trains), `sources` (where batches come from), `start` (the head's
first weights), `training` (the steps, and how they survive a kill), `finish` (the model).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.finetuning.api import FineTuneClassifier, finetune

__all__ = ["FineTuneClassifier", "finetune"]

if not TYPE_CHECKING:  # the command line needs the settings alone, and not scikit-learn

    def __getattr__(name: str) -> Any:
        if name in __all__:
            from featx.finetuning import api

            return getattr(api, name)
        raise AttributeError(f"module 'featx.finetuning' has no attribute {name!r}")
