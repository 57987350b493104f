"""Where the networks of a zoo come from: `provenance` of its `zoo.json`, one class for each way.

What has a default is written only where it is something else.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from dwf.errors import NotAZoo
from dwf.plain import Json
from dwf.settings import Name, RunName, build, to_dict


@dataclass(frozen=True)
class Provenance:
    """Where networks come from."""

    command: ClassVar[str] = ""
    """Command that makes such a zoo from its settings; empty: there is none."""

    def to_json(self) -> dict[str, Json]:
        """Return plain data; `read_provenance` is the inverse."""
        values = [(field, vars(self)[field.name]) for field in dataclasses.fields(self)]
        told = {f.name: v for f, v in values if f.default is dataclasses.MISSING or v != f.default}
        return {
            name: value.to_json() if isinstance(value, Provenance) else to_dict(value)
            for name, value in told.items()
        }


@dataclass(frozen=True)
class Trained(Provenance):
    """They were trained."""

    command: ClassVar[str] = "zoo"
    trained_by: str
    """The program and its version."""


@dataclass(frozen=True)
class Imported(Provenance):
    """They were read from files that others wrote."""

    command: ClassVar[str] = "import"
    imported_by: str
    """The program and its version."""
    format: str
    """Format of the files, see `importers.config`."""
    source: str
    """Name of the folder or file that they were read from, without its path."""
    members: int
    """Networks that it held, with those that could not be used."""
    listing: str
    """Digest of the members' names, runs, epochs and columns."""


@dataclass(frozen=True)
class Merged(Provenance):
    """They were put together from several zoos."""

    merged_by: str
    """The program and its version."""
    zoos: tuple[dict[str, Any], ...]
    """Facts of each zoo, plain data: `name`, `fingerprint`, `rows`, `networks_from`, `seed`,
    `provenance`, and `differs`, its facts that are not those of all."""


@dataclass(frozen=True)
class Aligned(Provenance):
    """They are another zoo's, their units reordered."""

    command: ClassVar[str] = "align"
    aligned_from: Name
    """Name of that zoo."""
    fingerprint: str
    """Its fingerprint."""
    method: str
    """How units were matched, see `AlignConfig`."""
    scale: Literal["none", "balanced"]
    """Whether units were rescaled."""
    reference: str
    """Reference that they were matched to."""
    reference_network: int
    """Number of the network that the reference is, or began as."""
    seed: int
    """Seed of the alignment."""
    signs: bool = False
    """Whether signs of units were flipped, too."""
    reference_zoo: Name | None = None
    """Name of the zoo of the reference, where it is another one."""
    reference_fingerprint: str | None = None
    """Fingerprint of that zoo."""
    before: Provenance | None = None
    """Where that zoo's networks come from."""


ASKED = "asked_"
"""Beginning of the names of columns that say what each sample was asked for."""


@dataclass(frozen=True)
class Sampled(Provenance):
    """They were drawn from a generator."""

    command: ClassVar[str] = "sample"
    generator: RunName
    """Its name."""
    digest: str
    """Its digest."""
    zoo: Name
    """Name of the zoo that it learnt from, of the architecture drawn."""
    zoo_fingerprint: str
    """Fingerprint of the rows that it learnt from, see `learning.origin_facts`."""
    seed: int
    """Seed of the noise."""
    solver: str | None
    """Solver of the differential equation; None of a density without one."""
    steps: int | None
    """Its steps; None of a solver that chooses them."""
    evaluations_per_sample: float
    """Evaluations of the density's network for each network drawn."""
    unreached: dict[str, Any] | None = None
    """Share of the coded functions that no weights give, in words by layer, of all samples that
    were drawn; None of a codec that does not solve for functions, and of samples selected."""
    learnt_from: tuple[Name, ...] = ()
    """Names of all zoos that the generator learnt from, where there are several."""
    subset: dict[str, Any] | None = None
    """Part of the training networks that the generator learnt from, plain data: see
    `generators.subset.Subset`; None: all."""
    condition: dict[str, Any] | None = None
    """Conditions that were asked for: name -> the words of what; each row's value of them is in the
    column `asked_NAME` (`ASKED`)."""
    guidance: float | dict[str, float] | None = None
    """How far they were exaggerated: together, or each by itself."""
    temperature: float | None = None
    """Factor of the noise that a flow started from; None: 1, as it learnt."""
    autoguidance: float | None = None
    """Weight of the lead away from the network's younger self; None: the generator's own."""
    batchnorm_images: int | None = None
    """Training images on which running statistics were re-estimated."""
    selection: dict[str, Any] | None = None
    """How networks were selected, plain data: see `selection.Selected`."""
    head: dict[str, Any] | None = None
    """The new head, plain data: its number of `classes`, and its `tensors`."""
    architecture: dict[str, Any] | None = None
    """The architecture, where the generator did not learn from it, plain data: `network`, `layers`
    (each -> the layer of the known architecture that it is drawn as, if it is one), and its
    `tokens`."""

    @property
    def is_of_unseen_widths(self) -> bool:
        """Whether units were drawn for widths that no zoo has, and no layer as another's copy."""
        return self.architecture is not None and not self.architecture["layers"]


_KINDS = {
    "trained_by": Trained,
    "merged_by": Merged,
    "aligned_from": Aligned,
    "generator": Sampled,
    "imported_by": Imported,
}


def read_provenance(told: dict[str, Json], file: str, *, key: str = "provenance") -> Provenance:
    """Return what `to_json` told.

    Args:
        told: plain data.
        file: where it stands, for errors.
        key: where in the file.

    Raises:
        NotAZoo: it is of no known kind.
        ConfigError: a key is missing, unknown or of another type.
    """
    kind = next((kind for marker, kind in _KINDS.items() if marker in told), None)
    if kind is None:
        raise NotAZoo(f"{file}: {key} has none of {', '.join(_KINDS)}, one of which is expected")
    before = told.get("before")
    rest = {name: value for name, value in told.items() if name != "before"}
    provenance = build(kind, rest, source=file, key=key)
    if before is None:
        return provenance
    earlier = read_provenance(before, file, key=f"{key}.before")
    return dataclasses.replace(provenance, before=earlier)
