"""``featx extract``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, escaped, n_bytes_text, seconds_text
from featx.cli.options import settings_options
from featx.extraction import Extract

if TYPE_CHECKING:
    from pathlib import Path

    from featx.extraction import Estimate, Executor, Extraction

#: Said wherever nobody named any data.
STAND_IN = (
    "No DATA given: this is scikit-learn's digits (1,797 scans of 8×8 pixels), a stand-in that is always there.\n"
    "Your own: featx extract photos/   (class folders, labels.csv --images DIR, .npz, .parquet, .tar; featx extract -h)"
)

#: Past this share of the time, waiting for images is what took it.
MUCH_WAITING = 0.25


@click.command()
@click.argument("data", required=False)
@settings_options(Extract)
@click.option("--cluster", metavar="ray[://ADDRESS|auto|local]", help="Compute on the nodes of a Ray cluster.")
@click.option("--dry-run", is_flag=True, help="Say what would be computed, its size and time, and stop.")
@common
def extract(
    console: Console, cache: Path, data: str | None, cluster: str | None, dry_run: bool, **options: Any
) -> None:
    """Run a frozen backbone over DATA once and keep its features in the cache.

    \b
    featx extract photos/ --backbone vgg16 --layer block3_pool --pool flatten

    DATA is a folder of class folders (or train/, val/, test/ over them), a flat folder, labels.csv with
    --images, .npz, .parquet, .tar, torchvision:CIFAR10, hf:owner/name, or digits. What the cache has
    already is not computed again, whatever the images are called now.
    """
    from featx import extraction

    if data is None:
        console.note(STAND_IN)
    settings = Extract(**options)
    request, how, views, executor = settings.request, settings.options, settings.asked_views, _cluster(cluster)
    dataset = settings.open(data or "digits")
    is_first = extraction.Rank.here().number == 0  # of processes launched together one speaks for all
    with Console(console.as_json, console.quiet or not is_first).progress() as progress:
        if dry_run:
            console.note(*dataset.notes)
            estimate = extraction.estimate(
                dataset, request, cache=cache, options=how, on_progress=progress, views=views
            )
            console.result(estimate.to_dict(), _estimate_text(estimate))
            return
        done = extraction.run(
            dataset, request, cache=cache, options=how, on_progress=progress, views=views, executor=executor
        )
    if is_first:
        console.note(*done.notes)
        console.result(done.to_dict(), extraction_text(done))


def _cluster(text: str | None) -> Executor | None:
    if text is None:
        return None
    from featx.cluster import RayCluster

    return RayCluster.parse(text)


def extraction_text(done: Extraction) -> str:
    """Return what an extraction came to, in a few lines."""
    lines = [f"{table.path}  {' × '.join(f'{n:,}' for n in table.shape)}" for table in done.tables]
    rate = f" ({done.images_per_second:.1f} images/s, {done.engine}, {done.precision})" if done.computed else ""
    lines.append(
        f"{done.n_images:,} images{_views_text(done.views)}: {done.computed:,} computed{rate}, {done.reused:,} reused, "
        f"{len(done.errors):,} errors, {seconds_text(done.seconds)}"
    )
    if done.waiting is not None:
        lines.append(_limit_text(done.waiting))
    lines += [f"  not read: {escaped(image)}: {reason}" for image, reason in done.errors[:5]]
    if len(done.errors) > 5:
        lines.append(f"  … and {len(done.errors) - 5:,} more, in the table's `errors`")
    if done.errors and not done.computed:
        lines.append(
            "  Those refused in an earlier run are tried again with --refresh only, as after an update of Pillow."
        )
    return "\n".join(lines)


def _views_text(n: int) -> str:
    return f", {n} views of each for training" if n > 1 else ""


def _limit_text(waiting: float) -> str:
    """Say what a faster extraction would need."""
    share = f"{100 * waiting:.0f} % of the time it waited for images"
    if waiting < MUCH_WAITING:
        return f"The limit was the network: {share}."
    resizing = "" if find_spec("numba") else ", images resize faster after pip install 'featx[fast]'"
    return f"The limit was reading and decoding: {share}. Large JPEGs decode faster with --decode draft{resizing}."


def _estimate_text(estimate: Estimate) -> str:
    images = f"{estimate.n_images:,} images{_views_text(estimate.views)}"
    return "\n".join(
        [
            f"{images}: {estimate.to_compute:,} would be computed",
            f"about {seconds_text(estimate.seconds)}; {n_bytes_text(estimate.n_bytes)} of features",
            *[f"→ {path}" for path in estimate.paths],
        ]
    )
