"""``featx cache``: look after the cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featx.cli.common import Console, common, n_bytes_text, seconds_text, table
from featx.errors import CacheError, CorruptFileError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.features import Features
    from featx.store import Store
    from featx.store.maintenance import Entry, Verdict

#: Classes, splits and errors that ``info`` names.
_MOST_LISTED = 10


@click.group()
def cache() -> None:
    """Look after the cache.

    \b
    featx cache list
    """


@cache.command("path")
@common
def path_command(console: Console, cache: Path) -> None:
    """Print where the cache is.

    \b
    featx cache path
    """
    console.result({"path": str(cache.resolve())}, str(cache.resolve()))


@cache.command("list")
@common
def list_command(console: Console, cache: Path) -> None:
    """List tables, unfinished work, damaged and unreadable files: rows, size, age, last use.

    \b
    featx cache list
    """
    from featx.store.maintenance import entries, reclaimable, total_bytes

    store = _existing(cache)
    found = entries(store)
    spare = {}
    with contextlib.suppress(CacheError):  # what can go is not known as long as a file cannot be read
        for flag in ("", " --orphans"):
            spare[flag] = sum(one.n_bytes for one in reclaimable(store, orphans=bool(flag)))
    data = {"entries": [_entry_dict(entry) for entry in found], "reclaimable": spare.get(" --orphans")}
    if not found:
        console.result(data, f"Nothing in {cache} yet. Fill it: featx extract")
        return
    lines = [
        table([_row(entry) for entry in found], ["table", "shape", "recipe", "size", "made", "used", ""], "lrlrrrl")
    ]
    lines += [entry.problem for entry in found if entry.problem]
    lines.append(f"{n_bytes_text(total_bytes(store))} in all")
    for flag, n_bytes in spare.items():
        if n_bytes > (spare[""] if flag else 0):
            lines.append(f"{n_bytes_text(n_bytes)} can be reclaimed: featx cache gc{flag}")
    console.result(data, "\n".join(lines))


@cache.command("info")
@click.argument("source", metavar="[TABLE]", required=False)
@common
def info_command(console: Console, cache: Path, source: str | None) -> None:
    """Print what TABLE, or the table used last, holds and how it was made.

    \b
    featx cache info cache/photos-0123abcd/vgg16-features.16-flatten-89ab4567.h5
    """
    from featx.cli.tables import find_table

    t = find_table(console, source, cache, None, remember=False)
    data = {
        "path": str(t.path),
        "key": t.key,
        "shape": list(t.shape),
        "dtype": str(t.dtype),
        "classes": {name: int((t.y == i).sum()) for i, name in [*enumerate(t.classes), (-1, "unlabelled")]},
        "splits": {name or "none": int((t.splits == name).sum()) for name in sorted(set(t.splits.tolist()))},
        "errors": len(t.errors),
        "views": t.views,
        "recipe": json.loads(t.recipe.to_json()) if t.recipe else None,
        "provenance": t.provenance,
    }
    console.result(data, "\n".join(_describe(t, data)))


def _describe(t: Features, data: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of ``featx cache info``."""
    yield f"{' × '.join(f'{length:,}' for length in t.shape)} {t.dtype}"
    yield f"classes   {len(t.classes):,}: {_counts(data['classes'])}"
    yield f"splits    {_counts(data['splits'])}"
    if t.augmentation is not None:
        yield f"views     {t.views}: {t.augmentation.augment}"
    for name, reason in t.errors[:_MOST_LISTED]:
        yield f"not read  {name}: {reason}"
    if len(t.errors) > _MOST_LISTED:
        yield f"          and {len(t.errors) - _MOST_LISTED:,} more"
    for title in ("recipe", "provenance"):
        for name, value in (data[title] or {}).items():
            yield f"{title if title == 'recipe' else 'made':<9} {name}: {_plain(value)}"
    yield f"key       {t.key}"


def _counts(counts: dict[str, int]) -> str:
    there = [f"{name} {count:,}" for name, count in counts.items() if count]
    return " · ".join([*there[:_MOST_LISTED], *(["…"] if len(there) > _MOST_LISTED else [])]) or "none"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


@cache.command("verify")
@click.option("--repair", is_flag=True, help="Set damaged files aside, keeping the rows that are sound.")
@common
def verify_command(console: Console, cache: Path, *, repair: bool) -> None:
    """Read every byte of every file and hold it against its checksums.

    \b
    featx cache verify
    """
    from featx.store.maintenance import sealed_files, total_bytes, verify

    started, store = time.perf_counter(), _existing(cache)
    with console.progress() as line:
        counter = line.bytes_counter("verify", total_bytes(store, sealed_files(store)))
        found = list(verify(store, on_bytes=counter, repair=repair))
    n_bytes, seconds = sum(one.n_bytes for one in found), time.perf_counter() - started
    kinds = {kind: [one for one in found if one.kind == kind] for kind in ("damaged", "unreadable")}
    data: dict[str, Any] = {"files": len(found), "bytes": n_bytes, "seconds": seconds}
    data |= {kind: [_verdict_dict(one) for one in ones] for kind, ones in kinds.items()}
    told = ", ".join(f"{len(ones)} {kind}" for kind, ones in kinds.items() if ones or kind == "damaged")
    text = f"{len(found):,} files, {n_bytes_text(n_bytes)} in {seconds_text(seconds)}: {told}"
    bad, unknown = kinds.values()
    if bad and not repair:
        here = "" if cache == Path("cache") else f" --cache {shlex.quote(str(cache))}"
        raise CorruptFileError(
            f"{text}, the first of them {bad[0].path}. "
            f"Type: featx cache verify --repair{here}, then extract again: only the lost rows are computed."
        )
    if unknown and not repair:
        raise CacheError(f"{text}. {unknown[0].problem}")
    lines = [f"set aside, {one.n_rescued:,} rows kept: {one.path}" for one in bad]
    console.result(data, "\n".join([text, *lines, *[str(one.problem) for one in unknown]]))


@cache.command("gc")
@click.option("--orphans", is_flag=True, help="Also rows of unfinished runs.")
@click.option("--max-size", metavar="10GiB", help="Then the tables used longest ago, until the cache is that small.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and keep it.")
@common
def gc_command(console: Console, cache: Path, *, orphans: bool, max_size: str | None, dry_run: bool) -> None:
    """Remove what nobody needs: leftovers of killed runs, files set aside, superfluous segments.

    \b
    featx cache gc --max-size 10GiB --dry-run
    """
    from featx.settings import parse_bytes
    from featx.store.maintenance import collect, reclaimable

    how, most = reclaimable if dry_run else collect, None if max_size is None else parse_bytes(max_size, least=0)
    found = how(_existing(cache), orphans=orphans, max_size=most)
    n_bytes = sum(one.n_bytes for one in found)
    lines = [f"{one.path}  {n_bytes_text(one.n_bytes)}  {one.reason}" for one in found]
    lines.append(
        f"{n_bytes_text(n_bytes)} {'would be freed' if dry_run else 'freed'}" if found else "Nothing to remove."
    )
    console.result(
        {
            "removed": [{"path": str(one.path), "bytes": one.n_bytes, "reason": one.reason} for one in found],
            "bytes": n_bytes,
            "dry_run": dry_run,
        },
        "\n".join(lines),
    )


@cache.command("networks")
@click.option("--prune", is_flag=True, help="Remove what is damaged, and what was used longest ago until --max-size.")
@click.option("--max-size", default="5GiB", show_default=True, metavar="SIZE", help="Of what --prune leaves.")
@common
def networks_command(console: Console, cache: Path, *, prune: bool, max_size: str) -> None:  # noqa: ARG001
    """List networks that were converted for OpenVINO, every byte checked. All caches of a user share them.

    \b
    featx cache networks
    featx cache networks --prune --max-size 1GiB

    They lie in the user's cache directory. FEATX_NETWORKS names another folder, or is off.
    """
    from featx.engines import kept
    from featx.settings import parse_bytes

    folder, most = kept.folder(), parse_bytes(max_size, least=0)
    gone = kept.prune(folder, most) if prune and folder is not None else []
    there = kept.listing(folder) if folder is not None else []
    n_bytes = sum(one.n_bytes for one in there)
    data = {
        "path": None if folder is None else str(folder),
        "networks": [dataclasses.asdict(one) | {"path": str(one.path)} for one in there],
        "removed": [str(one.path.parent) for one in gone],
        "bytes": n_bytes,
    }
    rows = [[one.of, n_bytes_text(one.n_bytes), _age(one.used), one.problem] for one in there]
    lines = [table(rows, ["network", "size", "used", ""], "lrrl")] if rows else []
    lines.append(f"{n_bytes_text(n_bytes)} in {folder or 'no folder: FEATX_NETWORKS is off'}")
    lines += [f"removed: {one.of or one.path.parent.name}" for one in gone]
    console.result(data, "\n".join(lines))


@cache.command("rm")
@click.argument("tables", metavar="TABLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def rm_command(console: Console, cache: Path, tables: tuple[Path, ...]) -> None:
    """Remove tables with those of their augmented views, and the segments that only they need.

    \b
    featx cache rm cache/photos-0123abcd/*.h5
    """
    from featx.store.maintenance import remove_tables

    freed = remove_tables(_existing(cache), tables)
    console.result({"removed": [str(path) for path in tables], "bytes": freed}, f"{n_bytes_text(freed)} freed")


def _existing(cache: Path) -> Store:
    """Open the cache; a folder that is not there is a slip of the pen, not an empty cache."""
    from featx.extraction import open_store

    if not cache.is_dir():
        raise MissingDataError(f"There is no cache at {cache}. Name it: --cache DIR, or fill it: featx extract")
    return open_store(cache)


def _row(entry: Entry) -> list[str]:
    shape = " × ".join(f"{length:,}" for length in entry.shape)
    note = {"table": "", "damaged": "damaged: featx cache verify --repair"}.get(entry.kind, entry.kind)
    if entry.n_errors:
        note += f"{entry.n_errors:,} not read"
    size, made, used = n_bytes_text(entry.n_bytes), _age(entry.created), _age(entry.used)
    return [str(entry.path), shape, _recipe_text(entry), size, made, used, note]


def _recipe_text(entry: Entry) -> str:
    """Say what the name of a table does not: weights, size of the input, precision."""
    if not entry.recipe:
        return ""
    recipe = json.loads(entry.recipe)
    frame = recipe["frame"]
    return f"{recipe['weights']} {frame['height']}×{frame['width']} {frame['resize']} {recipe['precision']}"


def _age(seconds: float) -> str:
    return f"{seconds_text(max(0.0, time.time() - seconds))} ago"


def _entry_dict(entry: Entry) -> dict[str, object]:
    recipe = json.loads(entry.recipe) if entry.recipe else None
    return dataclasses.asdict(entry) | {"path": str(entry.path), "shape": list(entry.shape), "recipe": recipe}


def _verdict_dict(verdict: Verdict) -> dict[str, object]:
    return dataclasses.asdict(verdict) | {"path": str(verdict.path)}
