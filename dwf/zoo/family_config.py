"""Settings of a family: several zoos, each of an architecture of its own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from dwf.checked import Checked
from dwf.errors import ConfigError
from dwf.names import why_no_part
from dwf.plain import Json
from dwf.settings import Count, PartOf, Whole, build
from dwf.yaml_files import laid_over
from dwf.zoo.config import ZooConfig

_OWN = "settings"
_Part = Annotated[dict[str, Any], PartOf(ZooConfig)]


@dataclass(frozen=True)
class FamilyConfig(Checked):
    """Several zoos, each of an architecture of its own."""

    zoos: dict[str, _Part]
    """Label of each zoo, with the settings of a zoo in which it differs from `shared`."""
    shared: _Part = field(default_factory=dict)
    """Settings of a zoo that all have; a zoo's own are laid over them, key by key."""
    count: Count | None = None
    """Number of networks of each zoo; default: as its settings say."""
    seed: Whole | None = None
    """Seed of each zoo; default: as its settings say."""

    def __post_init__(self):
        if not self.zoos:
            raise ValueError("zoos = {}: expected labels, each with the settings of a zoo")
        try:
            list(self._members())
        except ConfigError as error:  # whose file is told by whoever read it
            raise ValueError(str(error).replace(f"{_OWN}: ", "")) from None

    @property
    def members(self) -> dict[str, ZooConfig]:
        """Label -> settings of the zoo, in order."""
        return dict(self._members())

    def _members(self) -> Iterator[tuple[str, ZooConfig]]:
        flags = {"count": self.count, "seed": self.seed}
        given = {name: value for name, value in flags.items() if value is not None}
        for label, own in self.zoos.items():
            if why_no_part(label) or not isinstance(own, dict):
                raise ValueError(f"zoos.{label} = {own!r}: expected a label with settings of a zoo")
            # Both at once: a required setting may stand in either, or in a flag.
            data: dict[str, Json] = laid_over(self.shared, own)
            config = build(ZooConfig, data | given, source=_OWN, key=f"zoos.{label}")
            yield label, config


def class_of(data: dict[str, Json]) -> type[ZooConfig] | type[FamilyConfig]:
    """Return which settings a file's plain data are: those of a zoo, or of a family of zoos."""
    return FamilyConfig if "zoos" in data else ZooConfig


def zoos_in(data: dict[str, Json], source: str) -> tuple[ZooConfig, ...]:
    """Return the settings of each zoo that a file of either kind says.

    Args:
        data: what the file says, plain data.
        source: the file, for errors.

    Raises:
        ConfigError: see `settings.build`.
    """
    config = build(class_of(data), data, source=source)
    return tuple(config.members.values()) if isinstance(config, FamilyConfig) else (config,)
