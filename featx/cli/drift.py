"""``featx drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featx.cli.common import Console, common
from featx.cli.options import settings_options, taken
from featx.evaluation.drifting import Drifting
from featx.extraction import ComputeOptions
from featx.model.settings import Loading

#: The exit status where images have drifted: neither fine nor a failure.
DRIFTED = 3


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", metavar="TABLE|DATA")
@settings_options(Drifting, ComputeOptions, Loading)
@common
def drift(console: Console, cache: Path, model: Path, data: str, **options: Any) -> int:
    """Say whether new images are like those that a model knows. No labels are needed.

    \b
    featx drift model.featx new-photos/ || echo "look at them"
    featx drift model.featx new-photos/ --reference last-month/ --json

    Held against each other: how familiar the images are, and what the model says of them. The exit status is 3 where
    something has drifted, 0 where not, and 1 where that cannot be told.
    """
    from featx.evaluation import drift as found
    from featx.model import load

    told = found(load(model, **vars(taken(Loading, options))), data, cache=cache, **options)
    console.result(told.to_dict(), str(told))
    return DRIFTED if told.drifted else 0
