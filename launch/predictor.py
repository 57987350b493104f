"""Fit predictors of networks' properties to zoos and judge them on test networks: runs/NAME.

python launch/predictor.py --config configs/predictor/digits.yaml
python launch/predictor.py --config FILE --rows constant    # some rows of an experiment
python launch/predictor.py --config FILE --evaluate-only    # the report again
python launch/predictor.py --config FILE --predict ZOO      # columns of what is told of another zoo
python launch/predictor.py --config FILE --nodes 4          # rows through Slurm
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dwf import preemption, settings
from dwf.cluster.config import ClusterLaunch
from dwf.errors import exit_cleanly
from dwf.metrics import log_to_stderr
from dwf.predictors.config import ExperimentConfig

DEFAULT = "configs/predictor/digits.yaml"


@dataclass(frozen=True)
class PredictorLaunch(ClusterLaunch):
    """What is done with the rows of an experiment."""

    evaluate_only: bool = False
    """Write the report again from what rows have left; fit none."""
    predict: tuple[str, ...] = ()
    """Zoos, also of samples, of which the rows that are fitted tell; fit none."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit the rows, report; or report, or predict, with those that are fitted."""
    parsed = settings.parse(ExperimentConfig, DEFAULT, argv=argv, flags=PredictorLaunch)
    config, launch, name = parsed.config, parsed.launch, parsed.name
    log_to_stderr()
    from dwf.cluster import backend
    from dwf.predictors.prediction import predict_zoo
    from dwf.predictors.stage import fit_predictors, plan, report, report_again

    folder = launch.root / "runs" / name
    if launch.dry_run:
        print(plan(config, launch.root, name=name))
        print(parsed.describe())
        return
    preemption.watch()
    if launch.predict:
        for zoo in launch.predict:
            print(*predict_zoo(config, launch.root, name=name, zoo=zoo).lines(), sep="\n")
    elif launch.evaluate_only:
        report(report_again(config, launch.root, name=name), folder)
    else:
        print(plan(config, launch.root, name=name))
        run = backend.runner(launch, folder)
        report(fit_predictors(config, launch.root, name=name, run=run), folder)


if __name__ == "__main__":
    exit_cleanly(main)
