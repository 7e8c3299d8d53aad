"""Print docs/commands.md, the reference of every command and option, from what the command line itself knows.

python examples/command_reference.py > docs/commands.md
"""

from collections.abc import Iterator

import click

from featx.cli import cli
from featx.cli.common import COMMON

INTRODUCTION = """\
# Commands

Made by `examples/command_reference.py` from the settings that the commands, the functions of the same names and the
estimators share. An option `--batch-size` of a command is the keyword `batch_size` of `featx.extract` and of every
other function that takes it, with the same default.
"""


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the words and the click command of everything that can be typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


def options(command: click.Command, *, common: bool) -> Iterator[str]:
    """Yield a line for each option of `command`, for those that all commands have or for the others."""
    context = click.Context(command)
    for option in command.params:
        record = option.get_help_record(context)
        if record is not None and (option.name in COMMON) is common:
            typed, told = (" ".join(words.split()) for words in record)
            yield f"- `{typed}`: {told}"


def page() -> str:
    """Return the whole reference."""
    found = dict(commands())
    parts = [INTRODUCTION, "## Every command takes\n", "\n".join(options(found["extract",], common=True)), ""]
    for words, command in found.items():
        usage = " ".join([*command.collect_usage_pieces(click.Context(command))])
        parts += [f"## featx {' '.join(words)}\n", f"`featx {' '.join(words)} {usage}`\n"]
        parts += [
            (command.help or "").split("\n\n")[0].split("\b")[0].strip() + "\n",
            "\n".join(options(command, common=False)),
            "",
        ]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
