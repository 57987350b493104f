"""Work on the checkpoints of a run that trains.

python -m dwf.training convert runs/NAME    # for another number of DeepSpeed ranks
"""

import argparse
from pathlib import Path

from dwf.errors import exit_cleanly
from dwf.training.convert import convert
from dwf.trust import trust_pickle


def main() -> None:
    """Parse and convert."""
    parser = argparse.ArgumentParser(prog="python -m dwf.training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    words = "let the newest DeepSpeed checkpoint be resumed by any number of ranks"
    command = commands.add_parser("convert", help=words)
    command.add_argument("run", type=Path)
    pickles = "checkpoint of another user's that may be unpickled, which runs what code it holds"
    command.add_argument("--trust-pickle", type=Path, action="append", default=[], help=pickles)
    options = parser.parse_args()
    trust_pickle(*options.trust_pickle)
    for path in convert(options.run):
        print(f"converted: {path}; start the run again with any number of ranks")


if __name__ == "__main__":
    exit_cleanly(main)
