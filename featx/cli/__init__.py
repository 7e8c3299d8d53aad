"""The command line: ``featx COMMAND``. Each command parses, makes one library call, and prints.

Commands are imported when they are asked for, so that ``featx --help`` answers at once.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import importlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

import featx
from featx.cli.common import escaped, json_text
from featx.errors import FeatxError
from featx.files.disk import explanation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["cli", "main"]

#: Command → (module, one line of help), in the order in which a user meets them.
_COMMANDS = {
    "demo": ("featx.cli.demo", "The whole line on built-in data, no network."),
    "extract": ("featx.cli.extract", "Run a frozen backbone once and keep its features."),
    "fit": ("featx.cli.fit", "Fit a classifier on features, choose on validation."),
    "ensemble": ("featx.cli.ensemble", "Several models as one that averages them."),
    "predict": ("featx.cli.predict", "Labels and probabilities for images."),
    "evaluate": ("featx.cli.predict", "Metrics with confidence intervals."),
    "pack": ("featx.cli.pack", "One file of a whole model, for other runtimes."),
    "serve": ("featx.cli.serve", "A model over HTTP, with a page to drop photos on."),
    "card": ("featx.cli.share", "A model's card in Markdown, from its report."),
    "push": ("featx.cli.share", "A model and its card to the Hugging Face Hub."),
    "drift": ("featx.cli.drift", "Are new images like those that a model knows?"),
    "finetune": ("featx.cli.finetune", "Train a backbone, or its upper part, and a head on it."),
    "compare": ("featx.cli.compare", "Backbones × layers × heads as one leaderboard."),
    "report": ("featx.cli.report", "One self-contained page, and its pictures for papers."),
    "explore": ("featx.cli.explore", "A local page to look, search, clean and label."),
    "search": ("featx.cli.curation", "What is like an image, among the rows of a table."),
    "duplicates": ("featx.cli.curation", "Images that are nearly the same, and in which splits."),
    "doubts": ("featx.cli.curation", "Labels that look wrong, and why."),
    "suggest": ("featx.cli.curation", "Which images to label next."),
    "labels": ("featx.cli.labels", "Apply and merge the labels that people gave."),
    "backbones": ("featx.cli.names", "List backbones."),
    "layers": ("featx.cli.names", "List the layers of a backbone."),
    "heads": ("featx.cli.names", "List heads and their settings."),
    "cache": ("featx.cli.cache", "Look after the cache."),
    "export": ("featx.cli.tables", "Write a table as npz, Parquet, CSV or plain HDF5."),
}


class _LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(featx.__version__, prog_name="featx")
def cli() -> None:
    """Run a frozen backbone once, keep its features, fit classifiers on them in seconds.

    \b
    featx demo                                   the whole line on built-in data
    featx extract photos/ --backbone vgg16       a table of features in ./cache
    featx fit --head logreg -o model.featx       a classifier from the table used last
    featx predict model.featx photo.jpg          label and probability
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Returns
    -------
    int
        0 fine; 1 anything wrong with values, files or data; 2 usage; 130 after Ctrl-C or SIGTERM.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        with _stoppable():
            code = cli.main(args, prog_name="featx", standalone_mode=False)
            sys.stdout.flush()
    except click.UsageError as error:
        if "--json" in args:
            _print_error(error, error.format_message())
        error.show()
        wrong_value = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
        return 1 if wrong_value else 2
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "Interrupted. Everything committed is kept; the same command goes on from there (finetune: with --resume).",
            err=True,
        )
        return 130
    except BrokenPipeError:
        _close_stdout()  # the reader of a pipe left (`featx backbones | head`): nothing to say to anyone
        return 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line instead of a traceback
        return _fail(error, args)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops a command as Ctrl-C does, and neither is lost.

    Python drops whatever is raised while a destructor or a weak reference's callback runs, an interruption too
    (`sys.unraisablehook`): such a one is sent again a moment later, when that destructor is through.
    """
    main_thread = threading.get_ident()
    sending = threading.Lock()  # nothing is sent any more when SIGTERM means death again
    ended = False

    def send() -> None:
        time.sleep(0.01)
        with sending:
            if not ended:
                signal.pthread_kill(main_thread, signal.SIGTERM)

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            told(what)
            return
        while True:
            try:
                _thread.start_new_thread(send, ())  # Thread.start waits, and on a busy machine is interrupted itself
            except KeyboardInterrupt:  # dropped once more if it left this function
                continue
            else:
                return

    told, sys.unraisablehook = sys.unraisablehook, unraisable
    handled = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        with sending:
            ended = True
        signal.signal(signal.SIGTERM, handled)
        sys.unraisablehook = told


#: How Python, the loader of libraries, PyTorch, OpenVINO and OpenBLAS say that no memory is left.
_NO_MEMORY = (
    "failed to map segment", "annot allocate memory", "can't allocate memory", "bad_alloc", "can't start new thread",
    "llocation failed",
)  # fmt: skip


#: What the operating system says about a file and we can say in a sentence.
_EXPLAINED = {
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip


def _fail(error: Exception, args: Sequence[str]) -> int:
    """Print one line about `error`: what featx raised on purpose is for the user, the rest is a bug of ours."""
    if "--debug" in args:
        logging.getLogger("featx").error("", exc_info=error)
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY):
        message = (
            f"Too little memory: {message or type(error).__name__}. Raise the limit (ulimit -v unlimited, or that of "
            "the container), end other programs, or ask for less: --workers 1, --batch-size 1, fit --memory 1GiB."
        )
    elif isinstance(error, OSError) and error.filename and error.errno in _EXPLAINED:
        message = str(explanation(error, "open", Path(error.filename)))
    elif not isinstance(error, FeatxError):
        message = f"{type(error).__name__}: {message}"
        if not isinstance(error, OSError):
            message += " (unexpected: see where with --debug)"
    if "--json" in args:
        _print_error(error, message)
    click.echo(f"Error: {escaped(message)}", err=True)
    try:
        sys.stdout.flush()
    except OSError:
        _close_stdout()
    return 1


def _print_error(error: Exception, message: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(json_text({"error": {"type": type(error).__name__, "message": message}}))


def _close_stdout() -> None:
    """Let what is still to be written there go nowhere: Python would complain about it when it ends."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
