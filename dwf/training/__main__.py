"""Work on the checkpoints of a run that trains.

python -m dwf.training convert runs/NAME    # for another number of DeepSpeed ranks
"""

import argparse
from pathlib import Path

from dwf.errors import exit_cleanly
from dwf.training.convert import convert


def main() -> None:
    """Parse and convert."""
    parser = argparse.ArgumentParser(prog="python -m dwf.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    words = "let the newest DeepSpeed checkpoint be resumed by any number of ranks"
    commands.add_parser("convert", help=words).add_argument("run", type=Path)
    for path in convert(parser.parse_args().run):
        print(f"converted: {path}; start the run again with any number of ranks")


if __name__ == "__main__":
    exit_cleanly(main)
