"""Checkpoints for another number of DeepSpeed ranks: `dwf convert runs/NAME`."""

from pathlib import Path
from typing import Annotated

from dwf.arguments import REPEATED, Argument
from dwf.trust import trust_pickle as trust

Run = Annotated[Path, Argument(is_positional=True, metavar="RUN")]
Pickles = Annotated[tuple[Path, ...], REPEATED]


def convert(run: Run, *, trust_pickle: Pickles = ()) -> None:
    """Let the newest DeepSpeed checkpoint of a run be resumed by any number of ranks.

    Args:
        run: folder of the run.
        trust_pickle: checkpoint of another user's that may be unpickled, which runs what code it
            holds.
    """
    from dwf.training import convert as checkpoints

    trust(*trust_pickle)
    for path in checkpoints.convert(run):
        print(f"converted: {path}; start the run again with any number of ranks")
