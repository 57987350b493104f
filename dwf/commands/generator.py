"""Fit a generator, codec and density, to a zoo's training networks: runs/NAME.

dwf generator --config mnist_mlp
mpirun -n 4 dwf generator    # ranks share the codec's passes over the zoo
torchrun --nproc-per-node 2 -m dwf generator --engine ddp --config FILE    # ranks train together
dwf generator --engine deepspeed --nodes 4 --config FILE    # by slurm/generator.sh
"""

from collections.abc import Sequence

from dwf import preemption, room, settings
from dwf.cluster import ranked
from dwf.cluster.config import RankedLaunch
from dwf.commands.overwrite import make_room
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig
from dwf.generators.plan import WILL_FAIL, is_fitted, trains_on_ranks, with_engine
from dwf.metrics import log_to_stderr
from dwf.ranks import find_ranks, world
from dwf.trust import trust_pickle

DEFAULT = "mnist_mlp"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, plan, fit or submit, report."""
    if find_ranks().is_first:
        log_to_stderr()
    parsed = with_engine(
        settings.parse(
            GeneratorConfig,
            DEFAULT,
            argv=argv,
            after="{zoo}",
            command="generator",
            about=__doc__,
            flags=RankedLaunch,
        )
    )
    config, launch, name = parsed.config, parsed.launch, parsed.name
    trust_pickle(*launch.trust_pickle)
    folder, job, ranks = launch.root / "runs" / name, ranked.job_of(parsed), find_ranks()
    from dwf import distributed
    from dwf.evaluation.reconstruction import report_fit
    from dwf.generators.stage import fit_generator, plan

    if ranks.is_first:
        if said := parsed.preset_taken("generator"):
            print(said)
        gpus, num = (job.site.gpus, job.ranks) if job else (None, ranks.world)
        with room.planned_only(launch.dry_run or job is not None):
            planned = plan(config, launch.root, name=name, ranks=num, gpus=gpus)
        print(planned)
    if launch.dry_run:
        if ranks.is_first:
            print(*([job.describe()] if job else []), parsed.describe(), sep="\n")
            if f"\n{WILL_FAIL}" in planned:
                raise ConfigError(f"{name} would fail, as is told above: mend the settings")
        return
    preemption.watch()
    folders = (folder, launch.root / "reports" / f"{name}-reconstruction")
    if job:
        make_room(launch, *folders)
        ranked.run(job, config, is_done=is_fitted)
    else:
        ranked.refuse_while_submitted(folder)
        if trains_on_ranks(config):
            distributed.begin(folder)
        world().on_first(make_room, launch, *folders)
        fit_generator(config, launch.root, name=name)

        @world().on_first
        def tell() -> None:  # what the report returns stays with the first rank
            report_fit(launch.root, name, config=config)

    if ranks.is_first:
        print(f"generator in {folder}")
