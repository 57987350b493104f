"""Fit a generator, codec and density, to a zoo's training networks: runs/NAME.

python launch/generator.py --config configs/generator/mnist_mlp.yaml
mpirun -n 4 python launch/generator.py    # ranks share the codec's passes over the zoo
torchrun --nproc-per-node 2 launch/generator.py --engine ddp --config FILE    # ranks train together
python launch/generator.py --engine deepspeed --nodes 4 --config FILE    # by slurm/generator.sh
"""

from collections.abc import Sequence
from pathlib import Path

from dwf import preemption, settings
from dwf.cluster import ranked
from dwf.cluster.config import RankedLaunch
from dwf.generators import plan
from dwf.generators.config import GeneratorConfig
from dwf.metrics import log_to_stderr
from dwf.ranks import exit_together, find_ranks, world

DEFAULT = "configs/generator/mnist_mlp.yaml"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit or submit."""
    parsed = settings.parse(GeneratorConfig, DEFAULT, argv, "runs", RankedLaunch)
    parsed = plan.with_engine(parsed)
    launch, config, ranks = parsed.launch, parsed.config, find_ranks()
    folder, job = launch.root / "runs" / parsed.name, ranked.job_of(parsed, argv)
    if ranks.is_first:
        log_to_stderr()
        place = (job.ranks, job.site.gpu_memory_gb) if job else (ranks.world,)
        print(plan.describe_plan(config, launch.root, *place))
    if launch.dry_run:
        if ranks.is_first:
            print(*([job.describe()] if job else []), parsed.describe(), sep="\n")
        return
    preemption.watch()
    if job:
        ranked.run(job, config, plan.is_fitted)
    else:
        ranked.refuse_while_submitted(folder)
        fit(config, launch.root, parsed.name)
    if ranks.is_first:
        print(f"generator in {folder}")


def fit(config: GeneratorConfig, root: Path, name: str) -> None:
    """Fit, alone or as one of several ranks, and report what the codec loses."""
    from dwf import distributed
    from dwf.evaluation.reconstruction import report_fit
    from dwf.generators.stage import fit_generator

    if plan.trains_on_ranks(config):
        distributed.begin()
    fit_generator(config, root, name)
    world().on_first(lambda: report_fit(root, name, config))


if __name__ == "__main__":
    exit_together(main)
