"""One token per hidden unit: networks as sets of units, each told by what it computes.

A unit's incoming weights are tied to the order of the layer before; what it computes is not. So its
token holds its pre-activation as a function on fixed training inputs, whose labels are not used;
see `units.py`. Every layer is then an exchangeable set, whatever the depth, and no alignment is
needed. `decode` goes layer by layer: given the layers before, a layer's weights are the ridge
least-squares solution that gives the coded functions. A small error in one layer is so repaired by
the next.

In a residual network a channel of a stream is a unit that several layers write: its token holds
what each of them computes, see `wiring.py`.

What is lost: the rows of the first layer in directions along which the inputs hardly vary, which
`decode` draws anew, see `rest.py`; functions off the principal ones; scales of units that
the answers do not depend on.

Networks of several widths share one sequence with a mask for each; the functions are principal over
all of them. Room can be kept for widths that no zoo has: what units compute does not depend on how
many there are beside them.

Shape suffixes: N networks, B networks of a block, D numbers of a network, M inputs, U units, T
tokens, C numbers of the longest token, I weights of a unit of the first layer, R directions that
are not coded, E all that is measured of a network.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dwf.codecs.codec import TellUnreached
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
from dwf.codecs.functions.units import UnitCoder, measured
from dwf.codecs.functions.widths import (
    by_layout,
    code_shape,
    refuse_other_depth,
    refuse_same,
    slots,
    widest,
)
from dwf.codecs.functions.wiring import Wiring, read_wiring
from dwf.codecs.functions_config import FunctionsConfig
from dwf.codecs.several import SeveralLayouts, refuse_other_kind
from dwf.codecs.standardise import floored
from dwf.errors import ConfigError
from dwf.files import parse_json
from dwf.metrics import logger
from dwf.networks.config import NetworkConfig
from dwf.networks.functional import build_network
from dwf.randomness import numpy_stream, torch_stream
from dwf.ranks import world
from dwf.run_folder import RunFolder
from dwf.settings import build, to_dict
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Moments, Sources, count_networks, measure_moments, refuse_none

_DESCRIBED = 64  # networks that a plan looks at


class FunctionsCodec(SeveralLayouts):
    """Codes are sequences of units by what they compute."""

    cure = (
        "give it networks of the zoo's architecture, or fit another with their zoo among "
        "more_zoos, or their hidden widths among codec.unseen_widths"
    )

    @classmethod
    def planned_shape(
        cls, config: FunctionsConfig, layouts: Sequence[Layout], *, num_train: int
    ) -> CodeShape:
        """Return sequences of all units, with as many directions of the inputs as it can be."""
        sections_A = []
        for layout in layouts:
            _refuse_wide(config, layout)
            wiring = read_wiring(layout)
            sections_A.append(wiring.sections(_planned_sizes(config, wiring)))
        *coded, last = sections_A[0]
        for units in config.unseen_widths:
            refuse_other_depth(units, len(coded))
            sections = [(num, size) for num, (_, size) in zip(units, coded, strict=True)]
            sections_A.append([*sections, last])
        unseen = [f"unseen {units}" for units in config.unseen_widths]
        return code_shape([*(layout.digest for layout in layouts), *unseen], sections_A)

    @property
    def shape(self) -> CodeShape:
        """Sequences of all hidden units, layer after layer, and the output."""
        return code_shape(list(self.layouts), [each.sections for each in self._coders.values()])

    @property
    def _coder(self) -> UnitCoder:
        """The first layout's."""
        return self._coders[self.layout.digest]

    def fit(
        self, train: Sources, val: Sources, *, run: RunFolder, seed: int = 0
    ) -> "FunctionsCodec":
        """Find directions and functions, and the scale of tokens; see `Codec.fit`.

        The zoos may differ in the widths of hidden layers; `self.layout` is the first's.

        Raises:
            TooFewNetworks: there is no network, or too few for so many functions.
            ConfigError: the architecture is no such chain of layers; the zoos are for several data
                sets, or differ in more than widths; or there are too few inputs, or functions.
        """
        ours = world()
        train = [source for source in train if len(source[1])] or train
        chains = ours.on_all(lambda: self._begin(train, seed))
        some = by_layout(some_networks(train, seed=seed))
        learnt = [(chains[digest], sources) for digest, sources in some.items()]
        bases, energies = _find_bases(self.config, learnt, seed=seed)
        named = bases.to_arrays()
        self.arrays |= ours.on_first(lambda: named)
        bases = Bases.of(self.arrays)
        energy_I = bases.energy_I.numpy()
        components = self.config.components or leading(energy_I, self.config.energy)
        self._take(chains, bases, components=min(components, len(energy_I)))
        rest = Rest.fit([(self._coders[digest], each) for digest, each in some.items()]).to_arrays()
        self.arrays |= ours.on_first(lambda: rest)
        self._rest = Rest.of(self.arrays)
        moments = {
            digest: measure_moments(sources, prepare=partial(measured, self._coders[digest]))
            for digest, sources in by_layout(train).items()
        }
        self._take_moments(moments)
        self._describe_fit(moments, energies, num_functions=sum(map(count_networks, some.values())))
        return self

    def _begin(self, train: Sources, seed: int) -> dict[str, Chain]:
        """Return the layers of each architecture, also of those that no zoo has."""
        refuse_none(train)
        first, inputs_MX = _inputs(self.config, train, seed)
        networks = {zoo.layout.digest: zoo.facts.network for zoo, _ in train}
        self.layouts = {zoo.layout.digest: zoo.layout for zoo, _ in train}
        self.layout = train[0][0].layout
        self.planned_shape(self.config, list(self.layouts.values()), num_train=0)  # refuses
        for units in self.config.unseen_widths:
            network = first.with_hidden(units)
            layout = Layout.of(build_network(network))
            refuse_same(self.layouts, layout, units=units)
            _refuse_wide(self.config, layout)
            self.layouts[layout.digest], networks[layout.digest] = layout, network
        told = [to_dict(networks[digest]) for digest in self.layouts]
        self.arrays = {"inputs_MX": inputs_MX.numpy(), "networks": np.array(json.dumps(told))}
        return self._chains()

    def _chains(self) -> dict[str, Chain]:
        inputs_MX = torch.from_numpy(self.arrays["inputs_MX"])
        return {
            digest: Chain(network, self.layouts[digest], inputs_MX=inputs_MX)
            for digest, network in self._networks.items()
        }

    @property
    def _networks(self) -> dict[str, NetworkConfig]:
        """Digest -> architecture."""
        told = parse_json(str(self.arrays["networks"]), "the codec's networks", of=list)
        built = [build(NetworkConfig, each, source="the codec's networks") for each in told]
        return dict(zip(self.layouts, built, strict=True))

    def _take(self, chains: dict[str, Chain], bases: Bases, *, components: int) -> None:
        self._coders = {
            digest: UnitCoder(
                chains[digest],
                bases,
                components=components,
                ridge=self.config.ridge,
                scales=network.scales_units,
            )
            for digest, network in self._networks.items()
        }
        self._whole = widest([each.sections for each in self._coders.values()])

    def _take_moments(self, moments: dict[str, Moments]) -> None:
        shift_TC, scale_TC = np.zeros(self.shape.of_code), np.ones(self.shape.of_code)
        at = {digest: self.layouts[digest].size for digest in moments}
        for number, (tokens, numbers) in enumerate(slots(self._whole, self._whole)):
            parts = []
            for digest, each in moments.items():
                units, size = self._coders[digest].sections[number]
                parts.append((each, at[digest], units))
                at[digest] += units * size
            mean_C, deviation_C = _pooled(parts, size)
            if self.config.standardise == "per_feature":
                shift_TC[tokens, numbers] = mean_C
                scale_TC[tokens, numbers] = floored(deviation_C)
        learnt = {"shift_TC": shift_TC, "scale_TC": scale_TC}
        for digest, layout in self.layouts.items():
            known = digest in moments
            mean_D = moments[digest].mean_D[: layout.size] if known else np.zeros(layout.size)
            learnt[self._name("template_D", digest)] = mean_D
        self.arrays |= {name: array.astype(np.float32) for name, array in learnt.items()}

    def _describe_fit(
        self, moments: dict[str, Moments], energies: Sequence[float], *, num_functions: int
    ) -> None:
        energy_I, components = self._coder.bases.energy_I.double(), self._coder.components
        num_networks = sum(each.num_networks for each in moments.values())
        num_hidden, num_dead = 0, 0
        for digest, each in moments.items():
            units = self._coders[digest].wiring.num_units
            num_hidden += units * each.num_networks
            num_dead += round(each.num_networks * float(each.mean_D[-units:].sum()))
        self.facts = {
            "networks": num_networks,
            "code_size": self.shape.size,
            "tokens": self.shape.num_tokens,
            "sections": [list(section) for section in self.shape.sections],
            "components": components,
            "components_energy": _share(energy_I, components),
            "functions_energy": list(energies),
            "networks_of_functions": num_functions,
            "dead_units": num_dead,
        }
        if len(self.layouts) > 1:
            self.facts["architectures"] = len(self.layouts)
        if num_dead and world().is_first:
            logger.warning(
                "codec.kind = functions: %d of %d hidden units of the training networks are dead "
                "on all %d inputs; there is no function of theirs to solve for, and they stay dead",
                *(num_dead, num_hidden, self._coder.chain.num_inputs),
            )

    def encode(self, weights_ND: torch.Tensor, layout: Layout) -> Codes:
        """Return the codes of networks, some at a time; see `Codec.encode`."""
        self._refuse_other(layout.digest)
        shape, coder = self.shape, self._coders[layout.digest]
        values = torch.zeros(len(weights_ND), *shape.of_code)
        shift_TC, scale_TC = self._scaling
        size = coder.chain.block_size
        for start in range(0, len(weights_ND), size):
            block = values[start : start + size]
            found = coder.read(weights_ND[start : start + size]).tokens
            places = slots(self._whole, coder.sections)
            for tokens_NUC, (tokens, numbers) in zip(found, places, strict=True):
                block[:, tokens, numbers] = tokens_NUC
        kind = shape.layouts.index(layout.digest)
        mask = shape.mask[kind] if shape.is_mixed else shape.mask
        values.sub_(shift_TC).div_(scale_TC).masked_fill_(~mask, 0)
        kind_N = torch.full((len(values),), kind) if shape.is_mixed else None
        return Codes(values, shape, kind_N=kind_N)

    def decode(self, codes: Codes, layout: Layout) -> torch.Tensor:
        """Return weights_ND of codes; what they leave out is drawn, as of samples of seed 0."""
        return self.draw(codes, layout, seed=0)

    def draw(
        self,
        codes: Codes,
        layout: Layout,
        *,
        seed: int,
        first: int = 0,
        told: TellUnreached | None = None,
    ) -> torch.Tensor:
        """Return weights_ND of samples, the rest of the first layer drawn; see `Codec.draw`."""
        rest_NUR = self._drawn_rest(codes, layout, seed=seed, first=first)
        weights_ND, unreached_NL = self._solved(codes, layout, rest_NUR)
        if told is not None:
            told(unreached_NL)
        return weights_ND

    def _drawn_rest(self, codes: Codes, layout: Layout, *, seed: int, first: int) -> torch.Tensor:
        self._refuse_misfit(codes, layout)
        (units, _), *_ = self._coders[layout.digest].sections
        normal_NUR = np.empty((len(codes), units, len(self._rest.deviation_R)), np.float32)
        for number in range(len(codes)):
            stream = numpy_stream(seed, "rest", first + number)
            normal_NUR[number] = stream.standard_normal(normal_NUR.shape[1:])
        token_NUC = self._raw(codes.values, layout)[0]
        return self._rest.around(token_NUC, torch.from_numpy(normal_NUR))

    def _refuse_misfit(self, codes: Codes, layout: Layout) -> None:
        self._refuse_other(codes.shape.layout)
        self._refuse_other(layout.digest)
        refuse_other_kind(codes, layout)

    def decode_beside(
        self, codes: Codes, layout: Layout, *, weights_ND: torch.Tensor
    ) -> torch.Tensor:
        """Return what comes back of networks with their own rest of the first layer."""
        self._refuse_misfit(codes, layout)
        coder = self._coders[layout.digest]
        blocks = weights_ND.split(coder.chain.block_size)
        rest = [coder.read(some_ND).rest_NUR for some_ND in blocks]
        return self._solved(codes, layout, torch.cat(rest))[0]

    def _raw(self, values: torch.Tensor, layout: Layout) -> list[torch.Tensor]:
        """Return tokens_NUC of codes' values, before standardising, section by section."""
        shift_TC, scale_TC = self._scaling
        raw, sections = values * scale_TC + shift_TC, self._coders[layout.digest].sections
        return [raw[:, tokens, numbers] for tokens, numbers in slots(self._whole, sections)]

    def _solved(
        self, codes: Codes, layout: Layout, rest_NUR: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        coder, template_D = self._coders[layout.digest], self.template_of(layout)
        size = coder.chain.block_size
        found = [
            coder.solve(self._raw(values, layout), rest, template_D=template_D)
            for values, rest in zip(codes.values.split(size), rest_NUR.split(size), strict=True)
        ]
        if not found:
            return torch.empty(0, layout.size), torch.empty(0, len(coder.wiring.hidden) - 1)
        weights, residuals = zip(*found, strict=True)
        return torch.cat(weights), torch.cat(residuals)

    @property
    def _scaling(self) -> tuple[torch.Tensor, torch.Tensor]:
        return tuple(torch.from_numpy(self.arrays[name]) for name in ("shift_TC", "scale_TC"))

    def save(self, folder: Path) -> None:
        """Write it to a folder; `Codec.load` reads it."""
        self._keep_layouts()
        super().save(folder)

    def _open(self, folder: Path) -> None:
        self.layouts = {layout.digest: layout for layout in self._kept_layouts()}
        self._rest = Rest.of(self.arrays)
        components = len(self._rest.slope_CR) - 1
        self._take(self._chains(), Bases.of(self.arrays), components=components)

    @classmethod
    def describe(cls, config: FunctionsConfig, sources: Sources) -> Iterator[str]:
        """Yield how many directions and functions are coded, and what they hold."""
        refuse_none(sources)
        some = [(zoo, rows[:_DESCRIBED]) for zoo, rows in sources if len(rows)][:1]
        network, inputs_MX = _inputs(config, sources, 0)
        chain = Chain(network, some[0][0].layout, inputs_MX=inputs_MX)
        bases, energies = _find_bases(config, [(chain, some)], seed=0)
        energy_I = bases.energy_I.double()
        found = config.components or leading(energy_I.numpy(), config.energy)
        count = min(found, len(energy_I))
        yield (
            f"functions: first layer in {count} of {len(energy_I)} directions of "
            f"{len(inputs_MX):,} training inputs, {100 * _share(energy_I, count):.1f} % of their "
            f"variance; the rest is drawn"
        )
        yield from chain.wiring.describe()
        for number, energy in enumerate(energies, 2):
            yield (
                f"functions: layer {number} in {config.functions} principal functions, "
                f"{100 * energy:.1f} % of what its units compute ({count_networks(some)} networks)"
            )


def _inputs(
    config: FunctionsConfig, train: Sources, seed: int
) -> tuple[NetworkConfig, torch.Tensor]:
    """Return the first architecture, and the inputs on which units are read.

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
        refuse_unreadable(zoo.facts.network, zoo.layout)
        _refuse_wide(config, zoo.layout)
    data = first.load_data()
    if config.inputs > len(data.train):
        raise ConfigError(
            f"codec.inputs = {config.inputs}: {first.path} was trained on {len(data.train)} "
            "inputs; set codec.inputs to at most as many"
        )
    order = torch.randperm(len(data.train), generator=torch_stream(seed, "inputs"))
    images, _ = data.train.batch(order[: config.inputs].sort().values)
    return first.facts.network, data.prepare(images)


def _planned_sizes(config: FunctionsConfig, wiring: Wiring) -> list[int]:
    """Return in how many directions or functions each hidden layer is coded, at most."""
    first, *later = wiring.hidden
    most = config.most_components(first.incoming().shape[1])
    return [most, *(config.functions for _ in later)]


def _refuse_wide(config: FunctionsConfig, layout: Layout) -> None:
    """Refuse layers of more units than functions, whose weights no function tells apart."""
    for layer in read_wiring(layout).hidden[:-1]:
        if layer.units > config.functions:
            raise ConfigError(
                f"codec.functions = {config.functions}: {layer.weight.name} has {layer.units} "
                "units, and the weights that take them in do not follow from fewer functions: set "
                f"codec.functions to at least {layer.units}"
            )


def _find_bases(
    config: FunctionsConfig, learnt: Sequence[tuple[Chain, Sources]], *, seed: int
) -> tuple[Bases, list[float]]:
    """Return the bases, and what share of its functions each layer's hold. Ranks call it.

    Args:
        config: its settings.
        learnt: layers and networks of each architecture.
        seed: of the places.
    """
    chain, _ = learnt[0]
    numbers = range(len(chain.wiring.hidden))
    rows = [chain.choose_places(number, config.places, seed=seed) for number in numbers]
    refuse_few_functions(config.functions, learnt, places=[len(rows_P) for rows_P in rows])
    sums = [sum_products(each, sources, rows=rows) for each, sources in learnt]
    found = [
        principal_functions(sum(totals), config.functions) for totals in zip(*sums, strict=True)
    ]
    directions = [
        torch.from_numpy(each.copy()).float() for each in input_directions(chain, rows[0])
    ]
    functions = tuple(torch.from_numpy(each).float() for each, _ in found)
    return Bases(*directions, rows=tuple(rows), functions=functions), [share for _, share in found]


def _share(energy_I: torch.Tensor, count: int) -> float:
    total = energy_I.sum().item()
    return energy_I[:count].sum().item() / total if total else 1.0


def _pooled(parts: Sequence[tuple[Moments, int, int]], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of numbers over networks and units, [size] each.

    Args:
        parts: moments, where the numbers begin in them, and how many units there are.
        size: numbers of a unit.
    """
    means, variances, weights = [], [], []
    for moments, start, units in parts:
        part = slice(start, start + units * size)
        means += list(moments.mean_D[part].reshape(units, size))
        variances += list(moments.variance_D[part].reshape(units, size))
        weights += [moments.num_networks] * units
    mean_C = np.average(means, axis=0, weights=weights)
    apart_C = np.average(np.square(np.array(means) - mean_C), axis=0, weights=weights)
    return mean_C, np.sqrt(np.average(variances, axis=0, weights=weights) + apart_C)
