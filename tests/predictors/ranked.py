"""A program for ranks: an experiment with a row that they train together.

python -m tests.predictors.ranked ROOT
"""

import sys
from pathlib import Path

from dwf import distributed, preemption
from dwf.predictors.row import do_together
from dwf.predictors.stage import fit_predictors, with_engine
from dwf.ranks import exit_together
from tests.predictors.kinds import experiment, line, register


def main() -> None:
    register()
    preemption.watch()
    distributed.begin(Path(sys.argv[1]) / "ranks")
    rows = {"constant": {"kind": "constant"}, "line": line(), "large": line(batch_size=512)}
    config = with_engine(experiment(rows=rows), "ddp")
    fit_predictors(config, Path(sys.argv[1]), name="ranks", run=do_together)


if __name__ == "__main__":
    exit_together(main)
