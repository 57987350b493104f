"""Plain data: types of them and of settings, for annotations; names of files as text.

No torch is imported here.
"""

import dataclasses
import math
import os
from typing import TYPE_CHECKING, ClassVar, Protocol, Union

if TYPE_CHECKING:
    import torch

Json = str | int | float | bool | None | list["Json"] | tuple["Json", ...] | dict[str, "Json"]
"""Value that JSON can hold, a tuple as a list; YAML's are the same, but for dates."""

State = Union["torch.Tensor", Json, list["State"], tuple["State", ...], dict[int | str, "State"]]
"""Value that a checkpoint holds: tensors beside what JSON holds."""


def as_text(name: str) -> str:
    r"""Return the name of a file as text that can be written: bytes that are no UTF-8 as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def finite(data: Json) -> Json:
    """Return plain data with None in the place of numbers that are not finite: JSON has none."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


class Settings(Protocol):
    """A dataclass's object, as the settings of each stage are."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
