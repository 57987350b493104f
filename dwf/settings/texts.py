"""Texts of settings: the string that stands behind each field in its class."""

import ast
import functools
import sys
from pathlib import Path


def field_texts(cls: type) -> dict[str, str]:
    """Return the text of each setting of a class, those of its bases among them, in one line."""
    texts: dict[str, str] = {}
    for one in reversed(cls.__mro__[:-1]):  # the last is `object`
        file = sys.modules[one.__module__].__file__
        texts |= _read(file).get(one.__qualname__, {}) if file else {}
    return texts


@functools.cache
def _read(file: str) -> dict[str, dict[str, str]]:
    """Return class -> field -> text, of the classes at the top of a module."""
    found = {}
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, ast.ClassDef):
            pairs = zip(node.body, node.body[1:], strict=False)
            found[node.name] = {
                field.target.id: " ".join(text.value.value.split())
                for field, text in pairs
                if isinstance(field, ast.AnnAssign) and _is_text(text)
            }
    return found


def _is_text(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)
