"""Plain data: types of them and of settings, for annotations; text that is safe to show.

No torch is imported here.
"""

import dataclasses
import math
import os
import re
import unicodedata
from typing import TYPE_CHECKING, ClassVar, Protocol, Union

if TYPE_CHECKING:
    import torch

Json = str | int | float | bool | None | list["Json"] | tuple["Json", ...] | dict[str, "Json"]
"""Value that JSON can hold, a tuple as a list; YAML's are the same, but for dates."""

State = Union["torch.Tensor", Json, list["State"], tuple["State", ...], dict[int | str, "State"]]
"""Value that a checkpoint holds: tensors beside what JSON holds."""


_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, formats such as turns of direction, halves, line ends."""


_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\]\(")
_OWN_LINK = re.compile(r"!?\[[^\[\]]*\]\([\w./-]+\)")


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


def visible(text: str) -> str:
    r"""Return text that a terminal shows as it stands: control characters as `\x1b`.

    Line ends and tabs stay. Marks that turn the direction of writing are escaped too.
    """
    if is_visible(text, "\n\t"):
        return text
    return "".join(c if c in "\n\t" or is_visible(c) else _escaped(c) for c in text)


def is_visible(text: str, also: str = "") -> bool:
    """Whether all characters of a text are shown, and none of them steers a terminal.

    Args:
        text: the text.
        also: characters that may be in it all the same.
    """
    if text.isascii():
        return text.isprintable() or all(c.isprintable() or c in also for c in text)
    return all(unicodedata.category(c) not in _UNSHOWN or c in also for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def for_markdown(text: str) -> str:
    """Return Markdown in which no name is HTML or a link of its own: `<b>` is shown as it stands.

    Images and links that stand alone in a line, as dwf writes them, stay.
    """
    lines = _TAG.sub("&lt;", visible(text)).split("\n")
    return "\n".join(one if _OWN_LINK.fullmatch(one) else _LINK.sub(r"]\(", one) for one in lines)


class Settings(Protocol):
    """A dataclass's object, as the settings of each stage are."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
