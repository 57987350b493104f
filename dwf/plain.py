"""Types of plain data and of settings, for annotations.

No torch is imported here.
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Protocol, Union

if TYPE_CHECKING:
    import torch

Json = str | int | float | bool | None | list["Json"] | tuple["Json", ...] | dict[str, "Json"]
"""Value that JSON can hold, a tuple as a list; YAML's are the same, but for dates."""

State = Union["torch.Tensor", Json, list["State"], tuple["State", ...], dict[int | str, "State"]]
"""Value that a checkpoint holds: tensors beside what JSON holds."""


class Settings(Protocol):
    """A dataclass's object, as the settings of each stage are."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
