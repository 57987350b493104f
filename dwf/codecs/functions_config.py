"""Settings of the codec of units by what they compute."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from dwf.backbones.shape import Shape
from dwf.codecs.base_config import CodecSettings
from dwf.settings import Bounds, Count, Positive


@dataclass(frozen=True)
class FunctionsConfig(CodecSettings):
    """One token per hidden unit or filter, with what it computes on fixed training inputs."""

    title: ClassVar[str] = "unit functions"
    mixes: ClassVar[bool] = True
    buffers: ClassVar[bool] = True
    """Running statistics are measured on the inputs where networks are solved for."""
    makes_tokens: ClassVar[bool] = True
    has_derivative: ClassVar[bool] = True
    exchanges_tokens: ClassVar[bool] = True
    draws_rest: ClassVar[bool] = True

    inputs: Count = 1000
    """Training inputs, chosen by the seed, on which units are read; labels are not used."""
    places: Count = 4
    """Places of each input, chosen by the seed, at which a filter is read."""
    energy: Annotated[float, Bounds(0, 1)] = 0.98
    """Share of the inputs' variance that the coded directions of the first layer's rows hold, as
    few of them as possible; `decode` draws the other directions around what these say of them."""
    components: Count | None = None
    """Coded directions of the first layer's rows; default: as `energy` says."""
    functions: Count = 32
    """Principal functions in which the units of later hidden layers are coded: at least as many as
    the layer before has units."""
    ridge: Positive = 1e-4
    """Ridge of the least squares by which a layer's weights are found, as a share of the mean
    energy of what the layer takes in."""
    unseen_widths: tuple[tuple[Count, ...], ...] = ()
    """Numbers of units in the hidden layers of MLPs that no zoo has: room for them is kept in the
    sequence, so that `dwf sample --network.widths` can ask for such networks."""
    standardise: Literal["none", "per_feature"] = "per_feature"
    """Numbers brought to mean 0 and deviation 1 over the training networks: none, or each feature
    of a layer's units together, which leaves units exchangeable."""
    kind: Literal["functions"] = "functions"
    """The codec."""

    def __post_init__(self):
        if self.functions > self.inputs:
            raise ValueError(
                f"functions = {self.functions} on inputs = {self.inputs}: there are no more "
                "principal functions than inputs; set inputs to at least as many"
            )

    @property
    def reserves_widths(self) -> bool:
        """Whether networks of widths that no zoo has can be decoded."""
        return bool(self.unseen_widths)

    @property
    def has_open_size(self) -> bool:
        """Whether only the largest size that a code can have is known before the fit."""
        return self.components is None and self.energy < 1

    def most_components(self, inputs: int) -> int:
        """Return how many directions of the first layer's rows are coded, at most."""
        return min(self.components or inputs, inputs)

    def shape_of_mlp(self, widths: Sequence[int], num_train: int) -> Shape | None:
        """Return a token for each hidden unit, and one of the output's means; see the base."""
        if len(widths) < 3:
            return None
        hidden = [widths[1:-1], *self.unseen_widths]
        if any(len(each) != len(hidden[0]) for each in hidden):
            return None
        outputs = widths[-1]
        widths = (widths[0], *map(max, zip(*hidden, strict=True)), outputs)
        sections = [
            (units, 1 + (self.functions if layer else self.most_components(inputs)))
            for layer, (inputs, units) in enumerate(pairwise(widths[:-1]))
        ]
        units, size = sections.pop()  # the last hidden layer's tokens have outgoing weights, too
        sections += [(units, size + outputs), (1, outputs)]
        return Shape(sum(count * size for count, size in sections), tuple(sections))
