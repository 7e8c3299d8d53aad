"""Fine-tuning: the network itself learns, all of it or its upper part, and comes back as an ordinary `Model`.

`finetune` does all of ``featx finetune``; `FineTuneClassifier` is the same as an estimator. Inside `run`, in the
order of the work: `settings` (how), `blocks` and `network` (what trains), `sources` (where batches come from),
`upper` (a network cut for ``--from-cache``), `start` (the head's first weights), `training` and `checkpoint` (the
loop, and how it survives a kill), `finish` (the model).
"""

from featx.finetuning.api import finetune
from featx.finetuning.estimator import FineTuneClassifier
from featx.finetuning.settings import Settings

__all__ = ["FineTuneClassifier", "Settings", "finetune"]
