"""Generators that draw networks of an architecture that they did not learn from.

Shape suffixes: B networks of a block, D numbers of a network, S tokens.
"""

import dataclasses

import torch
from torch import nn

from dwf.codecs.codec import TellUnreached
from dwf.densities.density import Setting
from dwf.errors import ConfigError, ShapeMismatch
from dwf.generators.config import SampleConfig
from dwf.generators.generator import Generator
from dwf.metrics import logger
from dwf.networks.config import NetworkConfig
from dwf.networks.initialisation import initialise
from dwf.plain import Json
from dwf.randomness import seed_of
from dwf.settings import to_dict
from dwf.zoo.facts import Subject
from dwf.zoo.layout import Layout, Span
from dwf.zoo.misfit import refuse_other_data


class OtherArchitecture(Generator):
    """Base of a generator's codec and density for networks of an architecture of no zoo.

    Args:
        generator: one that is fitted, of the zoo whose data they are for.
        network: the architecture.
        module: one of it, see `_module_of`.
    """

    def __init__(self, generator: Generator, network: NetworkConfig, *, module: nn.Module):
        number = generator.zoos.index(generator.source)
        parts = generator.codec, generator.density
        super().__init__(*parts, origin=generator.origin, head=generator.head, zoo=number)
        self._subject = dataclasses.replace(generator.subject, network=network, permutations=None)
        self._layout = Layout.of(module)

    @property
    def subject(self) -> Subject:
        """The architecture drawn, and the data of the zoo whose architecture is known."""
        return self._subject

    @property
    def layout(self) -> Layout:
        """Layout of the networks that it draws."""
        return self._layout


def _module_of(network: NetworkConfig, generator: Generator) -> nn.Module:
    """Return a network of an architecture; raises `ConfigError` where the data do not fit it."""
    known = generator.subject
    return refuse_other_data(network, known.load_data(), title=known.data.title)


class NewArchitecture(OtherArchitecture):
    """A generator's codec and density, for networks of another architecture.

    Their layers are copies of known ones, see `codecs.tokens.tiling`; what the codec does not cover
    (norms and constants, as it was told) has the initial values of a network that is new.

    Args:
        generator: one that is fitted, of the zoo whose architecture is known.
        network: the new architecture, of as many classes as the known one.
        seed: of the initial values of what is not covered; the same for all networks.

    Raises:
        ConfigError: codec or density cannot draw them; a layer is like none that is known; or the
            zoo's data do not fit the architecture.
    """

    def __init__(self, generator: Generator, network: NetworkConfig, *, seed: int):
        _refuse_unable(generator)
        module = _module_of(network, generator)
        super().__init__(generator, network, module=module)
        self._tiling = self.codec.tiling(generator.layout, self._layout)
        initialise(module, network, kind="default", seed=seed_of(seed, "new architecture"))
        self._initial_D = self._layout.flatten(module.state_dict())
        for new, source in self._tiling.names.items():
            logger.info("new architecture: %s is drawn as %s", new, source)

    @property
    def numbers(self) -> int:
        """The most numbers that a network takes while it is drawn."""
        return max(self._layout.size, len(self._tiling.tokens_S) * self._tiling.known.size)

    @property
    def spans(self) -> list[Span]:
        """The stretches of a network that it draws; the others have initial values."""
        return self._tiling.new.spans

    @property
    def architecture(self) -> dict[str, Json]:
        """The new architecture and how it is mapped, plain data for the provenance of samples."""
        network, layers = to_dict(self._subject.network), self._tiling.names
        return {"network": network, "layers": layers, "tokens": len(self._tiling.tokens_S)}

    def sample(
        self,
        count: int,
        seed: int,
        *,
        first: int = 0,
        told: TellUnreached | None = None,
        **how: Setting,
    ) -> torch.Tensor:
        """Draw networks of the new architecture, weights_BD; see the base. There is no `how`.

        Tokens are laid, nothing is solved for, so that `told` is given nothing.
        """
        values_BSL = self.density.sample_tokens(
            self._tiling.tokens_S, count, seed=seed, first=first
        )
        return self.codec.decode_tiles(values_BSL, self._tiling, template_D=self._initial_D)


class UnseenWidths(OtherArchitecture):
    """A generator's codec and density, for networks of widths that the codec kept room for.

    Args:
        generator: one that is fitted.
        network: the architecture.

    Raises:
        ConfigError: the codec has no room for it; or the zoo's data do not fit it.
    """

    def __init__(self, generator: Generator, network: NetworkConfig):
        super().__init__(generator, network, module=_module_of(network, generator))
        try:
            self.codec.layout_of(self._layout.digest)
        except ShapeMismatch as error:
            raise ConfigError(f"network: {error}") from None

    @property
    def numbers(self) -> int:
        """The most numbers that a network takes while it is drawn."""
        return max(super().numbers, self._layout.size)

    @property
    def architecture(self) -> dict[str, Json]:
        """The architecture, plain data for the provenance of samples."""
        kind = self.density.shape.layouts.index(self._layout.digest)
        tokens = int(self.density.shape.mask[kind].any(1).sum())
        return {"network": to_dict(self._subject.network), "layers": {}, "tokens": tokens}


def of_network(generator: Generator, config: SampleConfig) -> Generator:
    """Return what draws the architecture that the settings ask for: by default a generator's own.

    Raises:
        ConfigError: see `NewArchitecture`; or the architecture has another number of classes than
            the generator's networks, and no new head is asked for.
    """
    network = config.network
    if network is None:
        return generator
    known = generator.subject.network.num_classes
    if known is not None and network.num_classes != known:
        if config.classes is None and config.data is None:
            raise ConfigError(
                f"network: it has {network.num_classes} logits, those of {config.generator} have "
                f"{known}: give it {known} too, or --classes {network.num_classes} for a new head"
            )
        network = network.with_classes(known)
    if generator.codec.config.reserves_widths:
        return UnseenWidths(generator, network)
    return NewArchitecture(generator, network, seed=config.seed)


def _refuse_unable(generator: Generator) -> None:
    codec, density = generator.codec.config, generator.density.config
    if not codec.tiles:
        raise ConfigError(
            f"network: codec.kind = {codec.kind!r} codes only networks of architectures that it "
            "was fitted to: fit a generator of codec sane and density kde, mode token"
        )
    if not density.draws_tokens:
        raise ConfigError(
            f"network: the density {density.words} draws whole codes of the networks that it "
            "learnt, and another architecture takes tokens that are drawn one by one: fit a "
            "generator of density kde, mode token, on this codec"
        )
