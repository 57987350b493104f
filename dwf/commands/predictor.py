"""Fit predictors of networks' properties to zoos and judge them on test networks: runs/NAME.

dwf predictor --config digits
dwf predictor --config FILE --rows constant    # some rows of an experiment
dwf predictor --config FILE --evaluate-only    # the report again
dwf predictor --config FILE --predict ZOO      # columns of what is told of another zoo
dwf predictor --config FILE --nodes 4          # rows through Slurm
torchrun --nproc-per-node 2 -m dwf predictor --engine ddp --config FILE    # ranks train together
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dwf import preemption, room, settings
from dwf.cluster.config import ClusterLaunch
from dwf.commands.overwrite import make_room
from dwf.metrics import log_to_stderr
from dwf.predictors.experiment_config import ExperimentConfig
from dwf.ranks import find_ranks, world

DEFAULT = "digits"


@dataclass(frozen=True)
class PredictorLaunch(ClusterLaunch):
    """Flags that say what to do with the rows of an experiment."""

    evaluate_only: bool = False
    """Write the report again from what rows have left; fit none."""
    engine: Literal["plain", "ddp", "deepspeed"] | None = None
    """Engine of all rows that train; several ranks: ddp, deepspeed."""
    predict: tuple[settings.Name, ...] = ()
    """Zoos, also of samples, of which the rows that are fitted tell; fit none."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit the rows, report; or report, or predict, with those that are fitted."""
    if find_ranks().is_first:
        log_to_stderr()
    parsed = settings.parse(
        ExperimentConfig,
        DEFAULT,
        argv=argv,
        command="predictor",
        about=__doc__,
        flags=PredictorLaunch,
        after="{zoos}-predictors",
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    ranks, root = find_ranks(), launch.root
    from dwf import distributed
    from dwf.cluster import backend
    from dwf.predictors.prediction import predict_zoo
    from dwf.predictors.row import do_together
    from dwf.predictors.stage import fit_predictors, plan, report, report_again, with_engine

    config = with_engine(config, launch.engine) if launch.engine else config
    if ranks.is_first:
        if said := parsed.preset_taken("predictor"):
            print(said)
        if not (launch.predict or launch.evaluate_only):
            folder = root / "runs" / name
            with room.planned_only(
                launch.dry_run or (ranks.world == 1 and backend.is_elsewhere(launch, folder))
            ):
                gpus = backend.gpus_elsewhere(launch, folder) if ranks.world == 1 else None
                print(plan(config, root, name=name, ranks=ranks.world, gpus=gpus))
    if launch.dry_run:
        print(*[parsed.describe()] * ranks.is_first)
        return
    preemption.watch()
    distributed.begin(root / "runs" / name)
    if launch.predict:
        for zoo in launch.predict:
            print(*predict_zoo(config, root, name=name, zoo=zoo).lines(), sep="\n")
        return
    if launch.evaluate_only:
        made = report_again(config, root, name=name)
    else:
        folders = (root / "runs" / name, root / "reports" / name)
        world().on_first(make_room, launch, *folders)
        run = do_together if ranks.world > 1 else backend.runner(launch, root / "runs" / name)
        made = fit_predictors(config, root, name=name, run=run)
    if ranks.is_first:
        report(made, root / "runs" / name)
