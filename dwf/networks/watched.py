"""Inputs and outputs of modules, read while a network runs."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import nn


class Note(Protocol):
    """A function that is told of a module that has just run."""

    def __call__(
        self, name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object
    ) -> None:
        """Take down what is wanted of it; torch goes on with the output as it is."""


@contextlib.contextmanager
def watched(modules: Mapping[str, nn.Module], note: Note) -> Iterator[None]:
    """Within the block, tell `note` of each of some modules as it has run.

    Args:
        modules: name -> module, as `dict(network.named_modules())` or some of it.
        note: called as `note(name, module, inputs, output)`.
    """
    hooks = [
        module.register_forward_hook(functools.partial(note, name))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
