"""Room in this machine's memory for what settings describe, told before any of it is taken.

A module is first made of shapes alone: widths that need terabytes are then a sentence, where memory
would be asked for until the system ends the process. No torch is imported here.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from dwf.errors import TooLarge
from dwf.metrics import logger

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)

_planned_only: ContextVar[bool] = ContextVar("planned_only", default=False)
_MOST_BYTES = 2**63
_NUMBERS_TOLD = 4


def machine_bytes() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def whole_numbers(config: object, key: str) -> Iterator[tuple[str, int]]:
    """Yield each whole number of settings, those in lists too, after the setting that holds it.

    Args:
        config: a dataclass, or a value of one.
        key: its dotted name.
    """
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from whole_numbers(vars(config)[field.name], f"{key}.{field.name}")
    elif isinstance(config, (tuple, list)):
        for one in config:
            yield from whole_numbers(one, key)
    elif isinstance(config, int) and not isinstance(config, bool):
        yield key, config


@contextmanager
def planned_only(is_so: bool = True) -> Iterator[None]:
    """Within the block a module that this machine cannot hold is of shapes alone, with a warning.

    So is planned what is done elsewhere, or not at all; whoever does it meets `TooLarge`.

    Args:
        is_so: whether this process only plans; else a module is refused as ever.
    """
    before = _planned_only.set(is_so)
    try:
        yield
    finally:
        _planned_only.reset(before)


def within_memory(build: Callable[[], "Module"], config: object, *, key: str) -> "Module":
    """Return a module, after the same has been made of shapes alone and found to fit.

    Args:
        build: makes it; dwf's own code alone, as it is called twice.
        config: its settings.
        key: dotted name of these, for the error.

    Raises:
        TooLarge: its weights take more bytes than this machine's memory has, and not only a plan
            asks, see `planned_only`; or than any machine's has.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = build()
    except RuntimeError as error:  # sizes that 64 bits do not count
        if "overflow" not in str(error) and "numel" not in str(error):
            raise
        need = _MOST_BYTES
    else:
        every = (*module.parameters(), *module.buffers())
        need = sum(one.numel() * one.element_size() for one in every)
    if need <= machine_bytes():
        return build()
    told = _words(need, config, key)
    if not _planned_only.get() or need >= _MOST_BYTES:
        raise TooLarge(f"{told}: give less, or another machine")
    logger.warning("%s: where this is done there must be more", told)
    return module


def _words(need: int, config: object, key: str) -> str:
    numbers = list(whole_numbers(config, key))
    name, _ = max(numbers, key=lambda one: one[1])
    told = [str(number) for other, number in numbers if other == name]
    told = told[:_NUMBERS_TOLD] + ["..."] * (len(told) > _NUMBERS_TOLD)
    most = "more than " if need >= _MOST_BYTES else ""
    return (
        f"{name} = {', '.join(told)}: the weights alone take {most}{need:,} bytes "
        f"({need / 2**30:,.1f} GiB), and this machine has {machine_bytes() / 2**30:,.1f} GiB of "
        "memory"
    )
