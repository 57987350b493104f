"""One token per hidden unit: networks as sets of units, each told by what it computes.

A unit's incoming weights are tied to the order of the layer before; what it computes is not. So its
token holds its pre-activation as a function on fixed training inputs, whose labels are not used;
see `units.py`. Every layer is then an exchangeable set, whatever the depth, and no alignment is
needed. `decode` goes layer by layer: given the layers before, a layer's weights are the ridge
least-squares solution that gives the coded functions. A small error in one layer is so repaired by
the next.

What is lost: the rows of the first layer in directions along which the inputs hardly vary, which
`decode` draws anew, see `rest.py`; functions off the principal ones; scales of units that
the answers do not depend on.

Shape suffixes: N networks, B networks of a block, D numbers of a network, M inputs, U units, T
tokens, C numbers of the longest token, I weights of a unit of the first layer, R directions that
are not coded, E all that is measured of a network.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes, CodeShape
from dwf.codecs.functions.bases import (
    Bases,
    input_directions,
    leading,
    principal_functions,
    refuse_few_functions,
    some_networks,
    sum_products,
)
from dwf.codecs.functions.chain import Chain, refuse_unreadable
from dwf.codecs.functions.rest import Rest
from dwf.codecs.functions.units import UnitCoder
from dwf.codecs.functions_config import FunctionsConfig
from dwf.codecs.neurons import read_layers
from dwf.codecs.standardise import floored
from dwf.errors import ConfigError
from dwf.files import parse_json
from dwf.metrics import logger
from dwf.networks.config import NetworkConfig
from dwf.randomness import numpy_stream, torch_stream
from dwf.ranks import world
from dwf.run_folder import RunFolder
from dwf.settings import build, to_dict
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Moments, Sources, common_layout, count_networks, measure_moments

_DESCRIBED = 64  # networks that a plan looks at


class FunctionsCodec(Codec):
    """Codes are sequences of units by what they compute."""

    @classmethod
    def planned_shape(
        cls, config: FunctionsConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return sequences of all units, with as many directions of the inputs as it can be."""
        (layout,) = layouts
        _refuse_wide(config, layout)
        *hidden, output = read_layers(layout)
        sizes = [config.most_components(hidden[0].incoming().shape[1])]
        sizes += [config.functions] * (len(hidden) - 1)
        sections = [(layer.units, size + 1) for layer, size in zip(hidden, sizes, strict=True)]
        units, size = sections.pop()
        sections += [(units, size + output.taken().shape[1]), (1, output.units)]
        return _code_shape(layout, sections)

    @property
    def shape(self) -> CodeShape:
        """Sequences of all hidden units, layer after layer, and the output."""
        return _code_shape(self.layout, self._coder.sections)

    def fit(
        self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0
    ) -> "FunctionsCodec":
        """Find directions and functions, and the scale of tokens; see `Codec.fit`.

        Raises:
            TooFewNetworks: there is no network, or too few for so many functions.
            ConfigError: the architecture is no chain without norms; the zoos are for several data
                sets; or there are too few inputs, or functions.
        """
        ours = world()
        chain = ours.on_all(lambda: self._begin(train, seed))
        some = some_networks(train, seed=seed)
        bases, energies = _find_bases(self.config, chain, sources=some, seed=seed)
        named = bases.to_arrays()
        self.arrays |= ours.on_first(lambda: named)
        bases = Bases.of(self.arrays)
        energy_I = bases.energy_I.numpy()
        components = self.config.components or leading(energy_I, self.config.energy)
        components = min(components, len(energy_I))
        self._coder = self._new_coder(chain, bases, components)
        rest = Rest.fit(self._coder, some).to_arrays()
        self.arrays |= ours.on_first(lambda: rest)
        self._rest = Rest.of(self.arrays)
        moments = measure_moments(train, prepare=self._measured)
        self._take_moments(moments)
        self._describe_fit(moments, energies, len_functions=count_networks(some))
        return self

    def _begin(self, train: Sources, seed: int) -> Chain:
        self.layout = common_layout(train)
        config, inputs_MX = _inputs(self.config, train, self.layout, seed)
        self.arrays = {"inputs_MX": inputs_MX.numpy()}
        self.arrays["network"] = np.array(json.dumps(to_dict(config)))
        return Chain(config, self.layout, inputs_MX=inputs_MX)

    def _new_coder(self, chain: Chain, bases: Bases, components: int) -> UnitCoder:
        scales = self._network.scales_units
        ridge = self.config.ridge
        return UnitCoder(chain, bases, components=components, ridge=ridge, scales=scales)

    @property
    def _network(self) -> NetworkConfig:
        told = parse_json(str(self.arrays["network"]), "the codec's network")
        return build(NetworkConfig, told, source="the codec's network")

    def _measured(self, weights_BD: np.ndarray) -> np.ndarray:
        """Return weights, tokens and dead units, side by side."""
        blocks = []
        for some_BD in torch.from_numpy(weights_BD).split(self._coder.chain.block_size):
            units = self._coder.read(some_BD)
            parts = [*units.tokens, units.dead_NU]
            blocks.append(torch.cat([some_BD, *(part.flatten(1) for part in parts)], 1))
        return torch.cat(blocks).numpy()

    def _take_moments(self, moments: Moments) -> None:
        sections, at = self._coder.sections, self.layout.size
        shift_TC, scale_TC = np.zeros(self.shape.of_code), np.ones(self.shape.of_code)
        token = 0
        for units, size in sections:
            mean_C, deviation_C = _pooled(moments, at, units, size)
            if self.config.standardise == "per_feature":
                shift_TC[token : token + units, :size] = mean_C
                scale_TC[token : token + units, :size] = floored(deviation_C)
            token, at = token + units, at + units * size
        learnt = {
            "template_D": moments.mean_D[: self.layout.size],
            "shift_TC": shift_TC,
            "scale_TC": scale_TC,
        }
        self.arrays |= {name: array.astype(np.float32) for name, array in learnt.items()}

    def _describe_fit(
        self, moments: Moments, energies: Sequence[float], *, len_functions: int
    ) -> None:
        energy_I, components = self._coder.bases.energy_I.double(), self._coder.components
        num_hidden = sum(layer.units for layer in self._coder.hidden)
        num_dead = round(moments.num_networks * float(moments.mean_D[-num_hidden:].sum()))
        self.facts = {
            "networks": moments.num_networks,
            "code_size": self.shape.size,
            "tokens": self.shape.num_tokens,
            "sections": [list(section) for section in self.shape.sections],
            "components": components,
            "components_energy": _share(energy_I, components),
            "functions_energy": list(energies),
            "networks_of_functions": len_functions,
            "dead_units": num_dead,
        }
        if num_dead and world().is_first:
            logger.warning(
                "codec.kind = functions: %d of %d hidden units of the training networks are dead "
                "on all %d inputs; there is no function of theirs to solve for, and they stay dead",
                *(num_dead, num_hidden * moments.num_networks, self._coder.chain.num_inputs),
            )

    def encode(self, weights_ND: torch.Tensor, layout: Layout) -> Codes:
        """Return the codes of networks, some at a time; see `Codec.encode`."""
        self._refuse_other(layout.digest)
        values = torch.zeros(len(weights_ND), *self.shape.of_code)
        shift_TC, scale_TC = self._scaling
        size = self._coder.chain.block_size
        for start in range(0, len(weights_ND), size):
            block, token = slice(start, start + size), 0
            for tokens_NUC in self._coder.read(weights_ND[block]).tokens:
                units, numbers = tokens_NUC.shape[1:]
                values[block, token : token + units, :numbers] = tokens_NUC
                token += units
        values.sub_(shift_TC).div_(scale_TC).masked_fill_(~self.shape.mask, 0)
        return Codes(values, self.shape)

    def decode(self, codes: Codes, layout: Layout) -> torch.Tensor:
        """Return weights_ND of codes; what they leave out is drawn, as of samples of seed 0."""
        return self.draw(codes, layout, seed=0)

    def draw(self, codes: Codes, layout: Layout, *, seed: int, first: int = 0) -> torch.Tensor:
        """Return weights_ND of samples, the rest of the first layer drawn; see `Codec.draw`."""
        return self._solved(codes, layout, self._drawn_rest(codes, seed=seed, first=first))[0]

    def _drawn_rest(self, codes: Codes, *, seed: int, first: int) -> torch.Tensor:
        units, rest = self._coder.sections[0][0], len(self._rest.deviation_R)
        normal_NUR = np.empty((len(codes), units, rest), np.float32)
        for number in range(len(codes)):
            stream = numpy_stream(seed, "rest", first + number)
            normal_NUR[number] = stream.standard_normal((units, rest))
        token_NUC = self._raw(codes.values)[0]
        return self._rest.around(token_NUC, torch.from_numpy(normal_NUR))

    def decode_beside(
        self, codes: Codes, layout: Layout, *, weights_ND: torch.Tensor
    ) -> torch.Tensor:
        """Return what comes back of networks with their own rest of the first layer."""
        blocks = weights_ND.split(self._coder.chain.block_size)
        rest = [self._coder.read(some_ND).rest_NUR for some_ND in blocks]
        return self._solved(codes, layout, torch.cat(rest))[0]

    def unreached(self, codes: Codes, layout: Layout, *, seed: int, first: int = 0) -> torch.Tensor:
        """Return what no weights give of coded functions, of each hidden layer but the first."""
        return self._solved(codes, layout, self._drawn_rest(codes, seed=seed, first=first))[1]

    def _raw(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return tokens_NUC of codes' values, before standardising, section by section."""
        shift_TC, scale_TC = self._scaling
        sections = self._coder.sections
        tokens = (values * scale_TC + shift_TC).split([units for units, _ in sections], 1)
        return [each[..., :size] for each, (_, size) in zip(tokens, sections, strict=True)]

    def _solved(
        self, codes: Codes, layout: Layout, rest_NUR: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._refuse_other(codes.shape.layout)
        self._refuse_other(layout.digest)
        template_D, size = torch.from_numpy(self.arrays["template_D"]), self._coder.chain.block_size
        found = [
            self._coder.solve(self._raw(values), rest, template_D=template_D)
            for values, rest in zip(codes.values.split(size), rest_NUR.split(size), strict=True)
        ]
        if not found:
            none = torch.empty(0, len(self._coder.hidden) - 1)
            return torch.empty(0, self.layout.size), none
        weights, residuals = zip(*found, strict=True)
        return torch.cat(weights), torch.cat(residuals)

    @property
    def _scaling(self) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.from_numpy(self.arrays[name]) for name in ("shift_TC", "scale_TC"))

    def _open(self, folder: Path) -> None:
        inputs_MX = torch.from_numpy(self.arrays["inputs_MX"])
        chain = Chain(self._network, self.layout, inputs_MX=inputs_MX)
        bases = Bases.of(self.arrays)
        self._rest = Rest.of(self.arrays)
        components = len(self._rest.slope_CR) - 1
        self._coder = self._new_coder(chain, bases, components)

    @classmethod
    def describe(cls, config: FunctionsConfig, sources: Sources) -> Iterator[str]:
        """Yield how many directions and functions are coded, and what they hold."""
        layout = common_layout(sources)
        some = [(zoo, rows[:_DESCRIBED]) for zoo, rows in sources if len(rows)][:1]
        network, inputs_MX = _inputs(config, sources, layout, 0)
        chain = Chain(network, layout, inputs_MX=inputs_MX)
        bases, energies = _find_bases(config, chain, sources=some, seed=0)
        energy_I = bases.energy_I.double()
        found = config.components or leading(energy_I.numpy(), config.energy)
        count = min(found, len(energy_I))
        yield (
            f"functions: first layer in {count} of {len(energy_I)} directions of "
            f"{len(inputs_MX):,} training inputs, {100 * _share(energy_I, count):.1f} % of their "
            f"variance; the rest is drawn"
        )
        for number, energy in enumerate(energies, 2):
            yield (
                f"functions: layer {number} in {config.functions} principal functions, "
                f"{100 * energy:.1f} % of what its units compute ({count_networks(some)} networks)"
            )


def _code_shape(layout: Layout, sections: Sequence[tuple[int, int]]) -> CodeShape:
    widest = max(size for _, size in sections)
    mask = torch.cat([torch.arange(widest).expand(units, -1) < size for units, size in sections])
    places = [(layer, u) for layer, (units, _) in enumerate(sections) for u in range(units)]
    positions = torch.tensor([(token, *place) for token, place in enumerate(places)])
    return CodeShape.sequences([layout.digest], positions, mask=mask)


def _inputs(
    config: FunctionsConfig, train: Sources, layout: Layout, seed: int
) -> tuple[NetworkConfig, torch.Tensor]:
    """Return the architecture, and the inputs on which units are read.

    Raises:
        ConfigError: see `FunctionsCodec.fit`.
    """
    first, _ = train[0]
    for zoo, _ in train:
        if zoo.facts.data != first.facts.data:
            raise ConfigError(
                f"codec.kind = 'functions' reads units on inputs of one data set; {first.path} is "
                f"for {first.facts.data}, {zoo.path} for {zoo.facts.data}: learn from zoos of one, "
                "or choose the codec neurons"
            )
    network = first.facts.network
    refuse_unreadable(network, layout)
    _refuse_wide(config, layout)
    data = first.load_data()
    if config.inputs > len(data.train):
        raise ConfigError(
            f"codec.inputs = {config.inputs}: {first.path} was trained on {len(data.train)} "
            "inputs; set codec.inputs to at most as many"
        )
    order = torch.randperm(len(data.train), generator=torch_stream(seed, "inputs"))
    images, _ = data.train.batch(order[: config.inputs].sort().values)
    return network, data.prepare(images)


def _refuse_wide(config: FunctionsConfig, layout: Layout) -> None:
    """Refuse layers of more units than functions, whose weights no function tells apart."""
    *hidden, _ = read_layers(layout)
    for layer in hidden[:-1]:
        if layer.units > config.functions:
            raise ConfigError(
                f"codec.functions = {config.functions}: {layer.weight.name} has {layer.units} "
                "units, and the weights that take them in do not follow from fewer functions: set "
                f"codec.functions to at least {layer.units}"
            )


def _find_bases(
    config: FunctionsConfig, chain: Chain, *, sources: Sources, seed: int
) -> tuple[Bases, list[float]]:
    """Return the bases, and what share of its functions each layer's hold. Ranks call it."""
    hidden = chain.layers[:-1]
    rows = [chain.choose_places(i, config.places, seed=seed) for i in range(len(hidden))]
    for layer, rows_P in zip(hidden[1:], rows[1:], strict=True):
        units, places = layer.units, len(rows_P)
        refuse_few_functions(config.functions, sources, units=units, places=places)
    found = [
        principal_functions(total_PP, config.functions)
        for total_PP in sum_products(chain, sources, rows=rows)
    ]
    directions = [
        torch.from_numpy(each.copy()).float() for each in input_directions(chain, rows[0])
    ]
    functions = tuple(torch.from_numpy(each).float() for each, _ in found)
    return Bases(*directions, rows=tuple(rows), functions=functions), [share for _, share in found]


def _share(energy_I: torch.Tensor, count: int) -> float:
    total = energy_I.sum().item()
    return energy_I[:count].sum().item() / total if total else 1.0


def _pooled(moments: Moments, start: int, units: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of numbers over networks and units, [size] each."""
    part = slice(start, start + units * size)
    mean, variance = (
        each[part].reshape(units, size) for each in (moments.mean_D, moments.variance_D)
    )
    return mean.mean(0), np.sqrt(variance.mean(0) + mean.var(0))
