"""Settings of an import, and the table of formats."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from dwf.checked import Checked
from dwf.datasets.config import AnyDataConfig
from dwf.errors import ConfigError
from dwf.networks.config import NetworkConfig
from dwf.settings import Count, Expert, Launch, Repeated, Whole
from dwf.zoo.config import SplitConfig
from dwf.zoo.facts import UNKNOWN

IMPORTERS = {
    "state_dict": "dwf.importers.state_dict:StateDicts",
    "deepweightflow": "dwf.importers.deepweightflow:DeepWeightFlow",
    "pdiff": "dwf.importers.pdiff:Checkpoints",
    "pdiff_data": "dwf.importers.pdiff_data:Stacked",
    "modelzoos": "dwf.importers.modelzoos:ModelZoos",
    "unterthiner": "dwf.importers.unterthiner:Unterthiner",
    "wild_park": "dwf.importers.wild_park:WildPark",
    "huggingface": "dwf.importers.huggingface:HuggingFace",
}
"""Format -> the class that reads it."""

WILD = "*?["
"""Signs of which one makes a source, that is no file or folder, a pattern."""

Format = Literal[
    "state_dict",
    "deepweightflow",
    "pdiff",
    "pdiff_data",
    "modelzoos",
    "unterthiner",
    "wild_park",
    "huggingface",
]


NO_DATASET = (
    "data.dataset is missing: give the dataset of the networks, as `data: {dataset: {kind: mnist}, "
    "split: unknown}`"
)
"""Words about networks that could be run, if one knew on what."""


@dataclass(frozen=True)
class ImportedData(Checked):
    """Data that networks of others were trained on: a dataset, and which of its images."""

    dataset: AnyDataConfig | None = None
    """Dataset that the networks were trained on; needed unless `network.kind` is `none`."""
    split: str = field(kw_only=True)
    """Images that the networks were trained on: a JSON or npz file with indices `train`, `val` and,
    where none is published, `test`; or `unknown`, which every report then says."""

    def __post_init__(self):
        if self.dataset is None and self.split != UNKNOWN:
            raise ValueError(f"split = {self.split!r} without a dataset: give data.dataset.kind")


@dataclass(frozen=True)
class ImportConfig(Checked):
    """A folder of networks that becomes a zoo."""

    source: str
    """Folder that holds the networks, or a pattern of files such as `runs/*/last.pt`."""
    data: ImportedData
    """Data that the networks were trained on."""
    format: Format = "state_dict"
    """How the networks are stored."""
    network: NetworkConfig | None = None
    """The architecture; kind `none` takes tensors as they are. Left out, the import is refused with
    the settings that fit."""
    permutations: str | None = None
    """YAML file, tensor -> list of a group or null for each axis: what can be reordered together
    where `network.kind` is `none`."""
    facts: str | None = None
    """CSV file of columns, a line for each `member` (a path in the source) or each `run`."""
    where: tuple[str, ...] = ()
    """Conditions on columns, as `activation=relu`: members of other values are left out."""
    split: SplitConfig = field(default_factory=SplitConfig)
    """Shares of the runs that are held out, by draw."""
    split_column: str | None = None
    """Column of the facts, or of the format's own, that says train, val or test of each run."""
    split_file: str | None = None
    """JSON file of `train`, `val` and `test`, each a list of runs or members."""
    run_pattern: str | None = None
    """Regular expression whose first group is a member's run, searched in its path; default: as the
    format says, else each file is a run."""
    nested: str | None = None
    """Dotted keys under which a file holds the tensors, as `model.ema`; default: found."""
    strip: tuple[str, ...] = ("module.", "_orig_mod.")
    """Prefixes that are taken off the names of tensors where all have them."""
    score: tuple[Literal["train", "val", "test"], ...] = ("val", "test")
    """Parts of the dataset that accuracies are measured on again."""
    seed: Whole = 0
    """Seed of the draw of the split."""
    shard: Count | None = None
    """Members of a shard, which is held in memory; default: 64 MiB of weights."""

    def __post_init__(self):
        try:
            re.compile(self.run_pattern or "")
        except re.error as error:
            raise ValueError(
                f"run_pattern = {self.run_pattern!r}: no regular expression: {error}"
            ) from None
        if self.network is not None and self.is_scored and self.data.dataset is None:
            raise ValueError(
                f"{NO_DATASET}; without one, `network: {{kind: none}}` takes the networks unscored"
            )
        if self.split_file and self.split_column:
            raise ValueError("split_file with split_column: both tell the split, so give one")
        if self.permutations and self.is_scored:
            raise ValueError(
                "permutations with a network: its groups are traced, so leave permutations out, "
                "or give `network: {kind: none}`"
            )

    @property
    def is_scored(self) -> bool:
        """Whether the networks can be run."""
        return self.network is None or self.network.is_known


@dataclass(frozen=True)
class ImportLaunch(Launch):
    """Flags of an import."""

    trust_pickle: Annotated[tuple[Path, ...], Repeated(), Expert()] = ()
    """File, or folder of files, that may be unpickled, which runs what code it holds."""
    fetch: str | None = None
    """Published zoo that is fetched into `source` first; `dwf published` names them."""


def has_source(config: ImportConfig) -> bool:
    """Tell whether `source` is there; a pattern is taken to be."""
    return any(sign in config.source for sign in WILD) or Path(config.source).exists()


def refuse_missing_source(config: ImportConfig) -> None:
    """Raise `ConfigError` where `source` names nothing that is there."""
    if not has_source(config):
        raise ConfigError(
            f"source = {config.source!r}: no such folder or file: give the folder that holds the "
            "networks, or a pattern of files"
        )
