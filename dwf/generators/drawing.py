"""Networks for a zoo of samples: draw, select, give a new head, re-estimate BatchNorm.

Shape suffixes: B networks of a block, D numbers of a network.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dwf import preemption
from dwf.codecs.codec import unreached_words
from dwf.densities.asked import Asked
from dwf.densities.base_config import DensitySettings
from dwf.densities.conditions import mixture
from dwf.densities.density import Setting
from dwf.errors import ConfigError
from dwf.generators.architecture import of_network
from dwf.generators.batchnorm import recalibration, source_of_statistics
from dwf.generators.config import SampleConfig
from dwf.generators.facts import FACTS
from dwf.generators.generator import Generator, subject_of
from dwf.generators.head import new_head
from dwf.generators.selection import Selected, select
from dwf.generators.unusable import Unusable
from dwf.metrics import Progress
from dwf.zoo.facts import Facts
from dwf.zoo.provenance import ASKED, Sampled
from dwf.zoo.shard import Block, Columns

Part = tuple[np.ndarray, torch.Tensor, Columns]
"""Numbers of some draws, their weights_BD, and columns of their own."""


class Drawing:
    """Draws the networks of one zoo of samples.

    Args:
        config: which, how many, how.
        generator: draws them.

    Raises:
        ConfigError: the generator has no such zoo, the density no such solver setting or condition,
            the networks no BatchNorm, or no head that can be changed.
        ShapeMismatch: the new task's images do not fit the networks.
    """

    def __init__(self, config: SampleConfig, generator: Generator):
        self.config = config
        self.asked = _asked(config, generator)
        """Values of conditions that the samples are asked for; None: of none."""
        zoo = config.zoo or _zoo_of(self.asked, generator)
        self.generator = of_network(generator.of_zoo(zoo), config)
        self.solver = _solver_settings(config, generator)
        self.condition: dict[str, Setting] = {}
        if self.asked:
            self.condition = {"condition": config.condition, "guidance": config.guidance}
        self.start = _other_settings(config, generator)
        drawn = self.generator.layout
        self.statistics = source_of_statistics(config, drawn, spans=self.generator.spans)
        self.head, self.subject = new_head(config, drawn, subject=self.generator.subject)
        """Architecture and data of the networks written: the learnt zoo's, but for the head."""
        self.layout = self.head.layout if self.head else drawn
        """Layout of the networks that are written."""
        self._unusable = Unusable(config.generator, drawn, statistics=self.statistics)
        self._selected: Selected | None = None
        self._evaluations = 0
        self._unreached: list[torch.Tensor] = []

    def blocks(self, folder: Path) -> Iterator[Block]:
        """Yield the blocks of the zoo's shard.

        Args:
            folder: on whose disk selected networks lie meanwhile.

        Raises:
            WorkFailed: samples are not finite, or have variances below zero.
        """
        finish = None
        if self.statistics == "recalibrated":
            subject = self.subject
            network, data = subject.build_network(), subject.load_data()
            finish = recalibration(
                self.config.batchnorm_images, self.layout, network=network, data=data
            )
        with self._counted():
            parts = self._all() if self.config.selection.keeps_all else self._best(folder)
            for numbers_B, weights_BD, more in parts:
                if self.head is not None:
                    weights_BD = self.head.reset(weights_BD, numbers_B)
                num = len(numbers_B)
                columns = {
                    "network": numbers_B,
                    "seed": np.full(num, self.config.seed),
                    "split": np.full(num, "sample"),
                    "epoch": np.zeros(num, np.int32),
                    "batchnorm": np.full(num, self.statistics),
                }
                if self.asked:
                    asked_B = self.asked.values_of(numbers_B)
                    columns |= {f"{ASKED}{name}": each_B for name, each_B in asked_B.items()}
                yield columns | more, (finish(weights_BD) if finish else weights_BD).numpy()

    def _all(self) -> Iterator[Part]:
        """Yield all samples; after one that cannot be used only such ones are counted."""
        config = self.config
        with Progress(f"sample {config.generator}", config.count, unit="networks") as progress:
            for first, num in self.generator.blocks(config.count):
                how = self.solver | self.condition | self.start
                weights_BD = self.generator.sample(
                    num, config.seed, first=first, told=self._unreached.append, **how
                )
                self._unusable.find(first, weights_BD)
                progress.update(first + num)
                if preemption.is_asked():
                    preemption.stop()
                if not self._unusable.count:
                    yield np.arange(first, first + num), weights_BD, {}
        self._unusable.refuse_any(config.count)

    def _best(self, folder: Path) -> Iterator[Part]:
        """Yield the samples that selection keeps, the best first."""
        config, at = self.config, 0
        how = self.solver | self.condition | self.start
        self._selected = select(
            self.generator, config, how=how, unusable=self._unusable, folder=folder
        )
        for keys, weights_BD in self._selected.blocks(self.generator.block_size):
            numbers_B = np.array([number for _, _, number in keys])
            accuracy_B = np.array([-accuracy for accuracy, _, _ in keys])
            ranks_B = np.arange(at, at + len(keys))
            at += len(keys)
            more = {"network": ranks_B, "drawn": numbers_B, "selection_accuracy": accuracy_B}
            yield numbers_B, weights_BD, more

    def facts(self) -> Facts:
        """Return what the zoo that is written says of itself; all of it once they are drawn."""
        told = vars(self.subject)
        return Facts(layout=self.layout, num_shards=1, provenance=self._provenance(), **told)

    def _provenance(self) -> Sampled:
        config, generator = self.config, self.generator
        own = generator.density.config.solver
        used = None if own is None else replace(own, **self.solver)
        several, recalibrated = len(generator.zoos) > 1, self.statistics == "recalibrated"
        return Sampled(
            generator=config.generator,
            digest=generator.digest,
            zoo=generator.source["zoo"],
            zoo_fingerprint=generator.source["fingerprint"],
            seed=config.seed,
            solver=None if used is None else used.method,
            steps=None if used is None or used.is_adaptive else used.steps,
            evaluations_per_sample=self._evaluations / config.drawn,
            unreached=unreached_words(self._unreached) or None,
            learnt_from=tuple(each["zoo"] for each in generator.zoos) if several else (),
            subset=generator.origin.get("subset"),
            **(self.asked.facts if self.asked else {}),
            temperature=None if config.temperature == 1 else config.temperature,
            autoguidance=config.autoguidance,
            batchnorm_images=config.batchnorm_images if recalibrated else None,
            selection=self._selected.facts if self._selected else None,
            head=self.head.to_json() if self.head else None,
            architecture=generator.architecture,
        )

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Within, each sample's evaluation of the density's networks is counted."""

        def count(_: nn.Module, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
            self._evaluations += len(inputs[0])

        with contextlib.ExitStack() as stack:
            for network in self.generator.density.networks:
                stack.callback(network.register_forward_hook(count).remove)
            yield


def _solver_settings(config: SampleConfig, generator: Generator) -> dict[str, str | int]:
    """Return the settings of the solver that differ from the density's own."""
    density = generator.density.config
    given = {"method": config.solver, "steps": config.steps}
    given = {key: value for key, value in given.items() if value is not None}
    if given and density.solver is None:
        raise ConfigError(
            f"the density of {config.generator} is {density.kind}, which has no "
            "solver: leave out --solver and --steps"
        )
    if config.solver is not None and config.solver not in density.methods:
        raise ConfigError(
            f"solver = {config.solver!r}: the density of {config.generator} is {density.kind}, "
            f"which has {', '.join(density.methods)}: choose one of these"
        )
    if given:
        _refuse_misfit(density, given)
    if "steps" in given and (solver := replace(density.solver, **given)).is_adaptive:
        raise ConfigError(
            f"steps = {config.steps}: {solver.method} chooses its own steps; leave out --steps, or "
            "set --solver to euler, midpoint, heun2 or rk4"
        )
    return given


def _other_settings(config: SampleConfig, generator: Generator) -> dict[str, Setting]:
    """Return how samples start, and are led, otherwise than the density does by itself."""
    density, found = generator.density.config, {}
    if config.autoguidance is not None:
        found["autoguidance"] = config.autoguidance
        if density.autoguidance is None:
            raise ConfigError(
                f"autoguidance = {config.autoguidance:g}: {config.generator} was fitted with "
                "density.autoguidance = null, so it kept no younger self: leave out "
                "--autoguidance, or fit one with --density.autoguidance.after 0.1"
            )
    if config.temperature == 1:
        return found
    if not density.has_temperature:
        raise ConfigError(
            f"temperature = {config.temperature:g}: the density of {config.generator} is "
            f"{density.kind}, and a flow alone starts from noise without more on the way: leave "
            "out --temperature"
        )
    return found | {"temperature": config.temperature}


def _refuse_misfit(density: DensitySettings, given: dict[str, str | int]) -> None:
    """Raise ConfigError where the density's other settings do not go with those of the solver."""
    try:
        replace(density, solver=replace(density.solver, **given))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _asked(config: SampleConfig, generator: Generator) -> Asked | None:
    """Return what samples are asked for; None: nothing.

    Raises:
        ConfigError: the density was fitted without conditions, or only with some, or not with
            these.
    """
    density = generator.density
    if density.config.takes_condition:
        return density.ask(config.condition, config.guidance)
    if config.condition is not None:
        raise ConfigError(
            f"condition = {config.condition}: the density of {config.generator} "
            f"({density.config.kind}) was fitted without one: leave it out, or fit a flow with "
            "density.condition val_accuracy"
        )
    return None


def _zoo_of(asked: Asked | None, generator: Generator) -> str | None:
    """Return the zoo whose data is asked for, of a mixture that of most; None: any will do.

    Raises:
        ConfigError: samples of several datasets are asked for at once.
    """
    if asked is None or len(generator.zoos) == 1:
        return None
    for name in (name for name in FACTS if name in asked.choices):
        said = {each["zoo"]: FACTS[name](subject_of(each)) for each in generator.zoos}
        values = [str(value) for value in asked.choices[name].values]
        if len(values) > 1 and len(set(said.values())) > 1:
            raise ConfigError(
                f"condition {name} = each: all networks of a zoo of samples are for one dataset: "
                f"draw {', '.join(values)} one after the other, each as a --name of its own"
            )
        most = max(mixture(values[0]), key=lambda pair: pair[1])[0]
        of_it = [zoo for zoo, value in said.items() if value == most]
        if of_it and len(of_it) < len(said):
            return of_it[0]
    return None
