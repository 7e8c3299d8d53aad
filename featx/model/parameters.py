"""How many values a fitted head has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.heads.state import export_state, is_exportable
from featx.model.vote import Vote

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Fitted arrays that describe a fit, or are statistics, instead of being trained.
_NOT_TRAINED = ("classes_", "codes_", "Cs_", "scores_", "n_iter_", "running_mean", "running_var", "num_batches_tracked")


def count_parameters(head: Any) -> int:
    """Return the number of trained values of a fitted `head`.

    Weights and biases; the nodes of trees; the rows that a nearest-neighbour head remembers. Of a head
    that is not featx's, the values of all its fitted arrays.

    Examples
    --------
    >>> from featx.heads import LogisticHead
    >>> count_parameters(LogisticHead().fit([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], [0, 1, 2]))
    9
    """
    if isinstance(head, Vote):
        return sum(count_parameters(voter.model.head) for voter in head.voters)
    if not is_exportable(head):
        learned = {name: value for name, value in vars(head).items() if name.endswith("_") and name not in _NOT_TRAINED}
        return sum(array.size for value in learned.values() for array in _arrays(value))
    meta, arrays = export_state(head)
    trees = meta["booster"]["learner"]["gradient_booster"]["model"]["trees"] if "booster" in meta else []
    n_nodes = sum(len(tree["split_conditions"]) for tree in trees)
    return n_nodes + sum(array.size for name, array in arrays.items() if not name.endswith(_NOT_TRAINED))


def _arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _arrays(item)
