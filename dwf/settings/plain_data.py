"""Settings as plain data, and the registries that settings choose from."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from dwf.plain import Json


def find(registry: dict[str, str], kind: str) -> Any:
    """Import what a registry (`kind` -> `"module:name"`) says; modules load on first use."""
    module, _, name = registry[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def to_dict(config: object) -> Json:
    """Return settings as plain data that YAML and JSON can hold; inverse of `build`."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (tuple, list)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def flatten(data: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    """Return nested settings as dotted keys: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    flat = {}
    for key, value in data.items():
        nested = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat
