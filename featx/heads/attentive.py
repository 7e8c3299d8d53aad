"""`AttentiveHead`: learned queries over stored tokens, maps, or the vectors of several layers."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from featx.heads.dense import MapClassifier
from featx.heads.layers import Layer, parse_layers
from featx.settings import check_number


@dataclass(eq=False, repr=False)
class AttentiveHead(MapClassifier):
    """Learned queries that average the positions of a map, or tokens, each with weights of its own; then softmax.

    A query w gives position x the weight softmax(wᵀx / √c), and the averages of all queries go into one dense layer:
    A. Bardes et al., "Revisiting feature prediction for learning visual representations from video", 2024, without
    projections, as B. Psomas et al., "Attention, please! Revisiting attentive probing", 2025. Queries begin at zero,
    which is average pooling.

    Parameters
    ----------
    queries : int
        How many averages are made.
    parts : int
        Vectors (n, d) are so many tokens side by side, such as the layers of a transformer in a join; all of one width.
    dropout : float
        Share of the averages dropped in training.
    optimizer, lr, weight_decay, momentum, eps, epochs, batch_size, schedule, factor, plateau_patience, min_lr
        As in `DenseHead`, and so are the rest.
    early_stopping, patience, min_delta, monitor, validation_fraction, label_smoothing, class_weight, init
    precision, device, random_state

    Attributes
    ----------
    classes_, state_, history_, n_iter_
        As in `DenseHead`.
    row_shape_ : tuple of int
        Shape of the rows fitted on: maps (c, h, w), tokens (t, c) or vectors (d,).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> tokens = X.reshape(-1, 8, 8) / 16  # each row of pixels is one
    >>> AttentiveHead(8, lr=0.05, epochs=10, random_state=0).fit(tokens, y).score(tokens, y) > 0.8
    True
    """

    queries: int = 4
    _: KW_ONLY
    parts: int = 1
    dropout: float = 0.0
    batch_size: int = 100

    def _stack(self) -> tuple[Layer, ...]:
        check_number("queries", self.queries, least=1, most=1000, whole=True)
        check_number("parts", self.parts, least=1, most=10_000, whole=True)
        check_number("dropout", self.dropout, least=0, most=0.99)
        split = f"split{self.parts} " if self.parts > 1 else ""
        drop = f" drop{self.dropout:.6f}" if self.dropout else ""
        return parse_layers(f"{split}bn attend{self.queries}{drop}")
