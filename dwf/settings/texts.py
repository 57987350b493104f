"""Texts of settings: the string that stands behind each field in its class."""

import ast
import dataclasses
import functools
import inspect
import sys


def field_texts(cls: type) -> dict[str, str]:
    """Return the text under each field of a dataclass, in order; none of those without one."""
    texts: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        texts |= _texts_of_module(one.__module__).get(one.__qualname__, {})
    names = [field.name for field in dataclasses.fields(cls)]
    return {name: texts[name] for name in names if name in texts}


@functools.cache
def _texts_of_module(module: str) -> dict[str, dict[str, str]]:
    """Return class -> field -> the text under it, from the module's source, if there is any."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {node.name: _texts_of(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _texts_of(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found
