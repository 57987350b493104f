"""One process's trial of a network: built several times, run on a few images with one row laid in.

Shape suffixes: B images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn

from dwf.errors import ConfigError
from dwf.networks.config import NetworkConfig
from dwf.networks.foreign import refuse_unlike_a_row
from dwf.networks.functional import batchnorm_buffers, build_network
from dwf.networks.held import floats_of
from dwf.networks.initialisation import initialise
from dwf.networks.sound.reachable import differing, digest_of, tensors_and_numbers
from dwf.networks.sound.rows import (
    State,
    agree,
    beside,
    lay,
    outputs_of,
    random_state_kept,
    seed_all,
    shaken_row,
)
from dwf.randomness import threads

_MOST_NAMED = 3
Seeds = tuple[int, int]
"""Seed of torch, and of NumPy and `random`."""


@dataclass(frozen=True)
class Findings:
    """Findings of one process on a network; they are the same in every process."""

    start: dict[str, str]
    """Tensor -> digest of its first numbers under one seed."""
    held: dict[str, str]
    """Name -> digest of all that the network can reach, with a row laid in."""
    logits: dict[str, list[list[float]]]
    """Mode -> logits_BK."""


@dataclass(frozen=True)
class Trial:
    """A network and what it is tried on."""

    config: NetworkConfig
    images: torch.Tensor
    """[B, *shape], float32, as a network takes them."""
    initialisations: Sequence[str] = ("default",)
    """The recipe's."""
    others: int = 0
    """Number from which seeds of NumPy and `random` count; another in each process."""

    def findings(self) -> Findings:
        """Return what one process finds.

        Raises:
            ConfigError: names the tensor or module that decides beside the row, and the cure.
        """
        with threads(1), random_state_kept():
            refuse_unlike_a_row(self._born((1, 1)), self.config.named)
            start: dict[str, str] = {}
            for kind in self.initialisations:
                start |= {f"{name} ({kind})": text for name, text in self._start(kind).items()}
            one, other = self._born((1, 1)), self._born((2, 2))
            self._refuse_other_tensors(one, other)
            row = shaken_row(one, self.images)
            counts = beside(one, row), beside(other, row)
            lay(one, row)
            held = tensors_and_numbers(one)
            evaluated = self._evaluate(one, other, row)
            trained = self._train(one, other, row=row, counts=counts)
            self._refuse_moved(one, row, evaluated)
        logits = {"evaluation": evaluated.tolist(), "training": trained.tolist()}
        return Findings(start, held, logits=logits)

    # --- how it begins -------------------------------------------------------------------------

    def _born(self, seeds: Seeds, kind: str | None = None) -> nn.Module:
        """Return a network as it begins under some seeds."""
        seed_all(seeds[0], self.others + seeds[1])
        network = build_network(self.config)
        initialise(network, self.config, kind=kind or self.initialisations[0], seed=seeds[0])
        return network

    def _start(self, kind: str) -> dict[str, str]:
        """Return digests of the first numbers; refuse those that do not follow from the seed."""
        one, again, other = (
            {n: digest_of(tensor) for n, tensor in floats_of(self._born(seeds, kind)).items()}
            for seeds in ((1, 1), (1, 2), (2, 3))
        )
        if names := differing(one, again):
            self.refuse(
                f"{some(names)} begins with other numbers when it is built again under one seed",
                "draw initial weights from torch's global generator, not from NumPy, `random` or a "
                "generator of another seed",
            )
        if one == other:
            self.refuse(
                f"all of it ({some(list(one))}) begins with the same numbers under every seed",
                "set no seed in the factory: dwf seeds each network by itself",
            )
        return one

    def _refuse_other_tensors(self, one: nn.Module, other: nn.Module) -> None:
        first, second = (
            {name: str(list(tensor.shape)) for name, tensor in floats_of(network).items()}
            for network in (one, other)
        )
        if names := differing(first, second) or sorted(first.keys() ^ second.keys()):
            self.refuse(
                f"{some(names)} is missing or of another shape when it is built again",
                "build the same tensors each time",
            )

    # --- how it answers ------------------------------------------------------------------------

    def _evaluate(self, one: nn.Module, other: nn.Module, row: State) -> torch.Tensor:
        """Return logits_BK in evaluation mode, in which both networks and all calls agree."""
        before = tensors_and_numbers(one)
        first_BK = self._run(one, (1, 1))
        now = floats_of(one)
        if names := [n for n, t in row.items() if digest_of(t) != digest_of(now[n])]:
            self.refuse(
                f"{some(names)} changes in evaluation mode, so that a row answers otherwise when "
                "it is asked again",
                "change it in training mode alone",
            )
        if not agree(first_BK, self._run(one, (2, 2))):
            self._refuse_changing(one, row, before=before, seeds=((1, 1), (2, 2)))
        lay(other, row)
        names = differing(before, tensors_and_numbers(other))
        if not agree(first_BK, self._run(other, (3, 3))):
            self._refuse_hidden(one, other, names=names)
        return first_BK

    def _train(
        self, one: nn.Module, other: nn.Module, *, row: State, counts: tuple[State, State]
    ) -> torch.Tensor:
        """Return logits_BK in training mode, equal where torch's random stream is."""
        found, held = [], []
        for number, (network, mine) in enumerate(((one, counts[0]),) * 2 + ((other, counts[1]),)):
            network.train()
            lay(network, row | mine)
            held.append(tensors_and_numbers(network))
            found.append(self._run(network, (4, 4 + number), learn=number == 0))
            self._refuse_moving_constants(network, row)
        if not agree(found[0], found[1]):
            self._refuse_changing(one, row | counts[0], before=held[0], seeds=((4, 4), (4, 5)))
        if not agree(found[0], found[2]):
            lay(one, row | counts[0])
            lay(other, row | counts[1])
            self._refuse_hidden(one, other, names=differing(held[0], held[2]))
        one.eval(), other.eval()
        return found[0]

    def _refuse_moving_constants(self, network: nn.Module, row: State) -> None:
        """Refuse buffers that training changes, but for a normalisation's running statistics."""
        known, now = batchnorm_buffers(network), dict(network.named_buffers())
        names = [
            name
            for name, tensor in row.items()
            if name in now and name not in known and digest_of(tensor) != digest_of(now[name])
        ]
        if names:
            self.refuse(
                f"training changes the buffer {some(names)}, which is no running statistics of "
                "BatchNorm or InstanceNorm, so that a generator would take it for a constant",
                "make it a parameter, or leave it as it is",
            )

    def _refuse_moved(self, one: nn.Module, row: State, evaluated_BK: torch.Tensor) -> None:
        """Refuse what training moves, no row holds, and answers depend on."""
        lay(one, row)
        moved = tensors_and_numbers(one)
        if agree(evaluated_BK, self._run(one, (1, 1))):
            return
        fresh = self._born((1, 1))
        lay(fresh, row)
        names = differing(tensors_and_numbers(fresh), moved)
        names = [name for name in names if not name.endswith("num_batches_tracked")]
        self.refuse(
            f"training changes {some(names) or 'what is in no row'}, and answers depend on it",
            "keep what decides on answers in parameters or floating-point buffers",
        )

    def _run(self, network: nn.Module, seeds: Seeds, *, learn: bool = False) -> torch.Tensor:
        """Return logits_BK under random streams; refuse what is no logits, or cannot be learnt."""
        seed_all(seeds[0], self.others + seeds[1])
        mode, images = _mode(network), self.images.clone()
        try:
            with torch.set_grad_enabled(learn):
                logits = network(images)
        except Exception as error:  # the user's code: any of its errors is theirs to mend
            self.refuse(
                f"forward fails in {mode} mode with {type(error).__name__}: {_line(error)}",
                "mend it there",
            )
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
            shape = list(logits.shape) if isinstance(logits, torch.Tensor) else ""
            self.refuse(
                f"forward returns a {type(logits).__name__} {shape}".rstrip() + f" in {mode} mode",
                "return one tensor of logits [B, K] in both modes",
            )
        if logits.dtype != torch.float32:
            self.refuse(
                f"{self._first_of(network, logits.dtype)} gives logits of {_word(logits.dtype)} in "
                f"{mode} mode, expected float32",
                "compute with float32, as rows are",
            )
        if digest_of(images) != digest_of(self.images):
            self.refuse("forward writes into the images it is given", "have it work on a copy")
        if learn:
            self._learn(network, logits)
        return logits.detach()

    def _learn(self, network: nn.Module, logits: torch.Tensor) -> None:
        if not logits.requires_grad:
            frozen = [name for name, one in network.named_parameters() if not one.requires_grad]
            found = f"{some(frozen)} is frozen" if frozen else "forward cuts the gradient"
            self.refuse(f"nothing of it can be learnt: {found}", "let a parameter learn")
        try:
            logits.logsumexp(1).sum().backward()
        except RuntimeError as error:
            self.refuse(f"its gradient cannot be taken: {_line(error)}", "mend forward")
        network.zero_grad(set_to_none=True)

    # --- what is wrong -------------------------------------------------------------------------

    def refuse(self, found: str, cure: str) -> NoReturn:
        """Raise `ConfigError` with what was found and what mends it."""
        raise ConfigError(f"{self.config.named}: {found}; {cure}")

    def _refuse_changing(
        self,
        network: nn.Module,
        state: State,
        *,
        before: dict[str, str],
        seeds: tuple[Seeds, Seeds],
    ) -> NoReturn:
        """Refuse a network that answers otherwise the second time: it draws, or it counts."""
        mode, now = _mode(network), tensors_and_numbers(network)
        names = [name for name in differing(before, now) if name not in state]
        again = []
        for each in (seeds[0], seeds[0], seeds[1]):
            lay(network, state)
            again.append(self._run(network, each))
        if agree(again[0], again[1]) and not agree(again[0], again[2]):
            where = self._first_module((network, seeds[0]), (network, seeds[1]), state)
            drawn = "random numbers" if mode == "evaluation" else "numbers that torch did not draw"
            cure = "in training mode alone" if mode == "evaluation" else "from torch alone"
            self.refuse(
                f"{where} draws {drawn} in {mode} mode, so that answers change from call to call",
                f"draw them {cure}",
            )
        where = some(names) or self._first_module((network, seeds[0]), (network, seeds[0]), state)
        self.refuse(
            f"{where} changes from call to call in {mode} mode, and the answers with it",
            "keep what decides on answers in parameters or floating-point buffers",
        )

    def _refuse_hidden(self, one: nn.Module, other: nn.Module, *, names: list[str]) -> NoReturn:
        where = some(names) or self._first_module((one, (4, 4)), (other, (4, 4)), {})
        self.refuse(
            f"{where} is in no row, and answers in {_mode(one)} mode depend on it: built twice and "
            "given one row, the network answers otherwise",
            "make it a parameter or a floating-point buffer (register_buffer), or the same in "
            "every network",
        )

    def _first_module(
        self, one: tuple[nn.Module, Seeds], other: tuple[nn.Module, Seeds], state: State
    ) -> str:
        """Return the name of the first module whose outputs differ between two runs."""
        outputs = []
        for network, seeds in (one, other):
            lay(network, state)
            with outputs_of(network) as told:
                self._run(network, seeds)
            outputs.append(told)
        for (name, tensor), (_, twin) in zip(*outputs, strict=False):
            if not agree(tensor, twin):
                return name
        return "forward"

    @torch.no_grad()
    def _first_of(self, network: nn.Module, dtype: torch.dtype) -> str:
        """Return the name of the first module that gives numbers of a type."""
        with outputs_of(network) as told:
            network(self.images)
        return next((name for name, tensor in told if tensor.dtype == dtype), "forward")


def some(names: Sequence[str]) -> str:
    """Return the first few names in words."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _mode(network: nn.Module) -> str:
    return "training" if network.training else "evaluation"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
