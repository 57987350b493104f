"""Facts that a zoo states of itself: `zoo.json`, whose keys are read here alone."""

import dataclasses
import functools
import hashlib
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from dwf.datasets.config import AnyDataConfig
from dwf.errors import ConfigError, NotAZoo
from dwf.files import read_json
from dwf.networks.config import NetworkConfig
from dwf.plain import Json
from dwf.settings import Bounds, build, to_dict
from dwf.zoo.config import KeepAbove, KeepBest, KeepSteps, RecipeConfig, SplitConfig, VaryConfig
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Aligned, Provenance, Sampled, read_provenance

if TYPE_CHECKING:
    from torch import nn

    from dwf.datasets.dataset import Dataset

FORMAT, VERSION = "dwf-zoo", 2
MANIFEST = "dwf-zoos"
"""Format of a `zoo.json` that names several zoos: see `manifest`."""
FILE = "zoo.json"
UNKNOWN = "unknown"
"""`image_split` of networks of which nobody knows which images they were trained on."""
UNKNOWN_IMAGES = (
    "Which images these networks were trained on is unknown: images that they are scored on may be "
    "among them."
)
"""Sentence that every report on such networks says."""
BLOCKS_OF_STEPS = "blocks of steps"
"""How the rows of a single network are split; else it is by networks."""
_APART = ("num_shards", "layout")  # the first and the last key
_CURE = "remove it and give the command that makes this zoo again"


@dataclass(frozen=True)
class Method:
    """How cohorts are computed. `zoo.json` records it, so no byte depends on timings later."""

    cohort: int
    """Networks trained together."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the arithmetic."""
    channels_last: bool = False
    """Whether images and filters lie in memory with channels last."""
    compile: bool = False
    """Whether `torch.compile` makes the program."""
    chosen: Literal["rule", "measured", "given"] = "rule"
    """Where it comes from: the settings, a rule on sizes, or a timing before training."""


@dataclass(frozen=True)
class Sound:
    """A trial before training found that a row determines what a network computes."""

    source: str
    """Digest of the files that its classes stand in."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Architecture and data of networks: facts that samples inherit from the learnt zoo."""

    network: NetworkConfig
    """The architecture."""
    data: AnyDataConfig | None = None
    """Data that the networks are trained on; None where nobody can run them."""
    image_split: str | None = None
    """Images that imported networks were trained on: digest of a split, see `datasets.image_split`,
    or `unknown`; None of networks that dwf trained, as its settings of the data say."""
    permutations: dict[str, tuple[str | None, ...]] | None = None
    """Groups of axes that can be permuted together, tensor -> group of each axis; None: traced."""
    input_shape: tuple[int, ...]
    """Shape of one input."""
    recipe: RecipeConfig | None = None
    """How each network is trained; None where zoos that were merged differ in it."""
    seed: int
    """Seed of the zoo's random streams."""

    def to_json(self) -> dict[str, Json]:
        """Return plain data; `settings.build` is the inverse."""
        return {name: to_dict(value) for name, value in vars(self).items() if value is not None}

    @property
    def caveats(self) -> tuple[str, ...]:
        """Sentences that every report on these networks says."""
        return (UNKNOWN_IMAGES,) if self.image_split == UNKNOWN else ()

    def build_network(self) -> "nn.Module":
        """Return one network of the architecture, in evaluation mode."""
        from dwf.networks.functional import build_network

        return build_network(self.network)

    def load_data(self) -> "Dataset":
        """Return what the networks are trained on, prepared as the settings say.

        Raises:
            ConfigError: networks that nobody can run were imported without data.
            DataUnavailable: the dataset, or the split that they were trained on, is not here.
        """
        from dwf.datasets.image_split import take_split
        from dwf.datasets.load import load_dataset

        if self.data is None:
            raise ConfigError(
                "these networks were imported with `network: {kind: none}` and without data, so "
                "they cannot be scored; import them again with both"
            )
        data = load_dataset(self.data)
        return data if self.image_split in (None, UNKNOWN) else take_split(data, self.image_split)


@dataclass(frozen=True, kw_only=True)
class Facts(Subject):
    """Facts that a zoo states of itself."""

    layout: Layout
    """Which numbers of a row are which tensor."""
    num_shards: Annotated[int, Bounds(1, 10**6)]
    """How many shards make the zoo whole."""
    count: int | None = None
    """How many numbers networks have, from 0, with those that diverged and those before `first`."""
    first: int | None = None
    """Number of the first network; None: 0."""
    vary: VaryConfig | None = None
    """Settings that differ between the networks' recipes."""
    split: SplitConfig | None = None
    """Which networks are held out."""
    keep_epochs: tuple[int, ...] | None = None
    """Epochs that became rows."""
    keep: KeepAbove | KeepBest | KeepSteps | None = None
    """Rows that were chosen otherwise."""
    train_scores: int | None = None
    """Training images that `train_accuracy` was measured on."""
    cohort: int | None = None
    """Networks trained together."""
    method: Method | None = None
    """How the networks were trained; None where they were not, or differently."""
    split_by: Literal["networks", "blocks of steps"] | None = None
    """How rows are split into train, val and test; None of samples."""
    sound: Sound | None = None
    """Trial of networks that dwf did not write; None of its own."""
    provenance: Provenance | None = None
    """Where the networks come from."""
    said: tuple[str, ...] = ()
    """The keys that the file has, in their order: a zoo made of another says the same likewise."""

    @classmethod
    def read(cls, folder: Path) -> "Facts":
        """Return what the `zoo.json` of a folder says.

        Raises:
            NotAZoo: there is none, or one of another format version, or a key is missing, unknown
                or has a value that is not allowed.
        """
        file = folder / FILE
        if not file.exists():
            raise NotAZoo(f"{folder} is not a zoo: it has no {FILE}; make one with dwf zoo")
        told = read_json(file, keys=("format", "version"), cure=_CURE, error=NotAZoo)
        found = (told.pop("format"), told.pop("version"))
        if found[0] == MANIFEST:
            zoos = told.get("zoos")
            names = ", ".join(map(str, zoos.values())) if isinstance(zoos, dict) else "none"
            raise NotAZoo(f"{folder} is a manifest of several zoos, where one is needed: {names}")
        if found != (FORMAT, VERSION):
            raise NotAZoo(
                f"{file}: format {found[0]} {found[1]}, this dwf reads {FORMAT} {VERSION}: {_CURE}"
            )
        return cls.of(told, file)

    @classmethod
    def of(cls, told: dict[str, Json], file: Path) -> "Facts":
        """Return facts from plain data, as `to_json` gives it; in its order.

        Args:
            told: without `format` and `version`.
            file: where it stands, for errors.

        Raises:
            NotAZoo: see `read`.
        """
        _refuse_other_keys(told, file)
        said = tuple(name for name in told if name not in _APART)
        values = {name: _typed(name, value, file) for name, value in told.items()}
        return cls(**values, said=said)

    def to_json(self) -> dict[str, Json]:
        """Return plain data, what `zoo.json` holds."""
        names = [name for name in _hints() if name not in (*_APART, *self.said)]
        more = [name for name in names if vars(self)[name] is not None]
        told = {name: vars(self)[name] for name in (*self.said, *more)}
        plain = {
            name: value.to_json() if isinstance(value, Provenance) else to_dict(value)
            for name, value in told.items()
        }
        head = {"format": FORMAT, "version": VERSION, "num_shards": self.num_shards}
        return head | plain | {"layout": self.layout.to_json()}

    @property
    def subject(self) -> Subject:
        """Facts that a zoo of samples inherits."""
        return Subject(**{f.name: vars(self)[f.name] for f in dataclasses.fields(Subject)})

    @functools.cached_property
    def identity(self) -> str:
        """A short name of the zoo and its frame: of all that it says of itself.

        Its shards carry it, so that one of another zoo, or of this one before alignment, is found.
        """
        told = self.to_json() | {"layout": self.layout.digest}
        text = json.dumps(_comparable(told), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def aligned(self) -> Aligned | None:
        """How the networks were aligned, if they were."""
        return self.provenance if isinstance(self.provenance, Aligned) else None

    @property
    def frame(self) -> tuple[str | int, ...]:
        """Reference that networks were matched to: equal of zoos that lie in one frame."""
        told = self.aligned
        if told is None:
            return ()
        zoo, fingerprint = told.reference_zoo, told.reference_fingerprint
        return (fingerprint if zoo else told.fingerprint, told.reference_network, told.scale)

    @property
    def sampled(self) -> Sampled | None:
        """How the networks were drawn from a generator, if they were."""
        return self.provenance if isinstance(self.provenance, Sampled) else None


def _comparable(value: Json) -> Json:
    """Return plain data as they are whether they were just made or read from a file."""
    if isinstance(value, dict):
        return {k: _comparable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_comparable(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@functools.cache
def _hints() -> dict[str, object]:
    """Key -> type, in the order in which keys are written unless a file has another."""
    hints = typing.get_type_hints(Facts, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "said"}


def _refuse_other_keys(told: dict[str, Json], file: Path) -> None:
    required = {
        field.name for field in dataclasses.fields(Facts) if field.default is dataclasses.MISSING
    }
    if told.get("network") != {"kind": "none"}:
        required.add("data")
    for name in _hints():
        if name in required and name not in told:
            raise NotAZoo(f"{file}: {name} is missing, which every zoo says: {_CURE}")
    for name in told:
        if name not in _hints():
            raise NotAZoo(f"{file}: {name} is nothing that a zoo says of itself: {_CURE}")


def _typed(name: str, value: Json, file: Path) -> object:
    try:
        if name == "layout":
            return Layout.from_json(value)
        if name == "provenance":
            return read_provenance(value, str(file))
        return build(_hints()[name], value, source=str(file), key=name)
    except ConfigError as error:
        raise NotAZoo(f"{error}; {_CURE}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NotAZoo(f"{file}: {name} is not as this dwf writes it: {_CURE}") from None
