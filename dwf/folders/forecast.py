"""Forecast of a pipeline: time and memory stage by stage, and why it would fail.

Times are arithmetic at the speed of a usual core (see `sweeps.estimate`): they tell minutes from
days. Memory is that of what is computed with: rows in work and a generator's training; Python and
PyTorch come on top.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwf import settings
from dwf.datasets.known import is_here
from dwf.errors import DwfError
from dwf.folders.kinds import MADE_BY, place_of
from dwf.generators.config import GeneratorConfig
from dwf.generators.plan import foreseen
from dwf.pipeline import STAGES, Command
from dwf.sweeps.estimate import fit_seconds, learnt_networks, sample_seconds, zoo_seconds
from dwf.zoo.config import ZooConfig
from dwf.zoo.family_config import FamilyConfig, class_of

_COPIES = 4  # of a network in training: weights, gradient, two moments
Key = tuple[str, str]
"""Stage and name: what two stages make may have one name."""
Known = dict[Key, tuple[Command, Any]]
"""Command and settings of each, as far as they can be read."""


@dataclass(frozen=True)
class Forecast:
    """One stage of a pipeline."""

    stage: str
    name: str
    seconds: float | None
    """Core-seconds; None where they are not known."""
    num_bytes: int | None
    """Memory of a worker; None where it is not known."""
    problems: tuple[str, ...]
    """Sentences on why it would fail."""

    @property
    def cells(self) -> list[str]:
        """Its cells under `COLUMNS`."""
        return [self.stage, self.name, _hours(self.seconds), _mib(self.num_bytes)]


COLUMNS = ("stage", "makes", "core-hours", "memory (MiB)")


def forecast(given: Sequence[Command], root: Path) -> list[Forecast]:
    """Return what each command of a pipeline will take, and why it would fail.

    Args:
        given: commands of a pipeline, in order.
        root: folder that holds zoos/ and runs/.
    """
    known, faults = _read(given)
    made: set[Path] = set()
    found = []
    for command in given:
        problems = [*_missing(command, made, root), *faults.get(_key(command), ())]
        if command.stage in MADE_BY:
            made.add(place_of(command.stage, root, name=command.name).path)
        problems += _too_few(command, known)
        costs = _seconds(command, known), _bytes(command, known)
        found.append(Forecast(command.stage, command.name, *costs, tuple(problems)))
    return found


def seconds_of(given: Sequence[Command]) -> list[float | None]:
    """Return the core-seconds of each command of a pipeline, None where they are not known."""
    known, _ = _read(given)
    return [_seconds(command, known) for command in given]


def sum_of(found: Sequence[Forecast]) -> list[str]:
    """Return the cells of the sum: times together, and the most memory that a stage takes."""
    times = [one.seconds for one in found if one.seconds is not None]
    sizes = [one.num_bytes for one in found if one.num_bytes is not None]
    unknown = sum(one.seconds is None for one in found)
    name = f"all but {unknown} that are not estimated" if unknown else "all"
    return ["sum", name, _hours(sum(times) if times else None), _mib(max(sizes, default=None))]


def _key(command: Command) -> Key:
    return command.stage, command.name


def _read(given: Sequence[Command]) -> tuple[Known, dict[Key, list[str]]]:
    """Return what is known of commands, and why settings cannot be read: their dry run says so."""
    known: Known = {}
    faults: dict[Key, list[str]] = {}
    for command in given:
        try:
            known[_key(command)] = (command, _config_of(command))
        except DwfError as error:
            faults[_key(command)] = [str(error)]
    return known, faults


def _config_of(command: Command) -> Any:
    """Return the settings of a command's stage, with all that its flags say."""
    cls = STAGES[command.stage].config
    if cls is ZooConfig:
        cls = class_of(settings.read_yaml(command.file, "zoo"))
    parsed = settings.parse(cls, command.file, argv=command.flags, command=command.stage)
    return parsed.config


def _missing(command: Command, made: Collection[Path], root: Path) -> Iterator[str]:
    """Yield which inputs are neither there nor made before."""
    for setting, value in command.links.items():
        parent = "runs" if setting == "generator" else "zoos"
        for name in (value,) if isinstance(value, str) else value:
            folder = root / parent / name
            if folder not in made and not folder.exists():
                yield f"{setting} = {name}: {folder} is not there, and no stage before makes it"


def _zoo_behind(name: str, known: Known) -> ZooConfig | None:
    """Return the settings of the zoo that a name goes back to; None of one that is there."""
    if ("align", name) in known:
        command, _ = known["align", name]
        name = command.links.get("zoo", "")
    _, config = known.get(("zoo", name), (None, None))
    return config if isinstance(config, ZooConfig) else None


def _behind(command: Command, known: Known) -> tuple[ZooConfig, GeneratorConfig] | None:
    """Return the zoo and the generator that a fit or a draw is of; None where one is not known."""
    _, config = known.get(_key(command), (None, None))
    if command.stage == "sample" and config is not None:
        _, config = known.get(("generator", config.generator), (None, None))
    if not isinstance(config, GeneratorConfig):
        return None
    zoo = _zoo_behind(config.zoo, known)
    return None if zoo is None else (zoo, config)


def _seconds(command: Command, known: Known) -> float | None:
    """Return the core-seconds of a stage."""
    _, config = known.get(_key(command), (None, None))
    if isinstance(config, FamilyConfig):
        each = [zoo_seconds(zoo) for zoo in config.members.values()]
        return None if None in each else sum(each)
    if isinstance(config, ZooConfig):
        return zoo_seconds(config)
    behind = _behind(command, known)
    if behind is None:
        return None
    if command.stage == "generator":
        return fit_seconds(*behind)
    return sample_seconds(*behind, sample=config)


def _bytes(command: Command, known: Known) -> int | None:
    """Return the memory that a stage takes."""
    _, config = known.get(_key(command), (None, None))
    if isinstance(config, FamilyConfig):
        sizes = [_bytes_of_zoo(zoo) for zoo in config.members.values()]
        return max(filter(None, sizes), default=None)
    if isinstance(config, ZooConfig):
        return _bytes_of_zoo(config)
    behind = _behind(command, known)
    return _bytes_of_fit(*behind) if behind and command.stage == "generator" else None


def _bytes_of_zoo(zoo: ZooConfig) -> int | None:
    """Return what a worker holds while it trains a cohort: copies of weights, and a batch each."""
    from dwf.datasets.load import load_dataset
    from dwf.networks.functional import build_network
    from dwf.zoo import roster
    from dwf.zoo.layout import Layout

    if not is_here(zoo.data):
        return None
    num_inputs = load_dataset(zoo.data).train.images[0].numel()
    size = Layout.of(build_network(zoo.network)).size
    cohort = zoo.cohort or 1
    if zoo.network.is_stacked:
        cohort = roster.cohort_size(zoo, size, num_inputs=num_inputs)
    cohort = min(cohort, zoo.count)
    return cohort * 4 * (_COPIES * size + zoo.recipe.batch_size * num_inputs)


def _bytes_of_fit(zoo: ZooConfig, config: GeneratorConfig) -> int | None:
    """Return what the training of a density holds: its parameters' copies, and the codes."""
    import torch

    from dwf.codecs.config import CODECS
    from dwf.networks.functional import build_network
    from dwf.training.memory import memory_of_training
    from dwf.zoo.layout import Layout

    density = config.density
    with torch.device("meta"):
        layout = Layout.of(build_network(zoo.network))
    num = learnt_networks(zoo, config)
    codec = settings.find(CODECS, config.codec.kind)
    shape = codec.planned_shape(config.codec, [layout], num_train=num)
    codes = 4 * num * shape.size
    if density.training is None or density.backbone is None:
        return codes
    if density.backbone.takes_tokens != (shape.sections is not None):
        return None
    with torch.device("meta"):
        told = (1,) * len(density.conditions) if density.takes_condition else ()
        backbone = density.build_network(shape, told=told)
    parameters = sum(each.numel() for each in backbone.parameters())
    return codes + memory_of_training(density.training, parameters, world=1)["total"]


def _too_few(command: Command, known: Known) -> Iterator[str]:
    """Yield where a zoo of the pipeline leaves a generator too few networks."""
    behind = _behind(command, known)
    if behind is None or command.stage != "generator":
        return
    zoo, config = behind
    plain = zoo.count > 1 and zoo.keep is None
    if plain and config.epochs == "last" and not config.more_zoos:  # else rows are not counted
        there = learnt_networks(zoo, config)
        if config.networks is not None and config.networks > there:
            yield f"networks = {config.networks}, and the zoo leaves {there} to learn from"
        yield from itertools.islice(foreseen(config, there), 1)


def _hours(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 3600:.2g}"


def _mib(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f}"
