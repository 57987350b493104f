"""The command `dwf NAME ...`, also `python -m dwf NAME ...`."""

import sys
from collections.abc import Sequence

from dwf import __version__
from dwf.commands import COMMANDS
from dwf.errors import ConfigError
from dwf.ranks import exit_together
from dwf.yaml_files import nearest


def run(argv: Sequence[str] | None = None) -> None:
    """Do what the command line names; without a name, tell what there is.

    Raises:
        ConfigError: there is no such command; names the nearest.
    """
    name, *words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(f"dwf {__version__}")
    elif name in COMMANDS:
        COMMANDS[name].run(words, name)
    else:
        raise ConfigError(
            f"dwf {name}: no such command{nearest(name, list(COMMANDS))}; dwf --help lists all"
        )


def overview() -> str:
    """Return a line for each command."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items())
    return "\n".join(["usage: dwf COMMAND ...", "", *lines, "", "dwf COMMAND --help says more."])


def main() -> None:
    """Run as a program."""
    exit_together(run)


if __name__ == "__main__":
    main()
