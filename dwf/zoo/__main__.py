"""Look after zoos: `python -m dwf.zoo status|info|verify|statistics|merge`."""

import sys

import tyro

from dwf.metrics import log_to_stderr
from dwf.ranks import exit_together
from dwf.zoo import care

COMMANDS = (care.status, care.info, care.verify, care.statistics, care.merge)


def main() -> None:
    """Run the command that the command line names; exit with what it returns."""
    log_to_stderr()
    commands = {command.__name__: command for command in COMMANDS}
    code = tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m dwf.zoo", description=care.__doc__
    )
    sys.exit(code)


if __name__ == "__main__":
    exit_together(main)
