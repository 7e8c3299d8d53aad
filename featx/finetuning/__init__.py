"""Fine-tuning: the network itself learns, all of it or its upper part, and comes back as an ordinary `Model`.

`finetune` does all of ``featx finetune``. Inside, in the order of the work: `settings` (how), `blocks` and `network`
(what trains), `sources` (where batches come from), `start` (the head's first weights), `training` and `checkpoint`
(the loop, and how it survives a kill), `finish` (the model).
"""

from featx.finetuning.api import finetune
from featx.finetuning.settings import Settings

__all__ = ["Settings", "finetune"]
