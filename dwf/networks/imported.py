"""Networks of the user's own, imported by name."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable
from types import ModuleType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dwf.errors import ConfigError
from dwf.networks.config import PythonConfig
from dwf.networks.foreign import protect_inputs, refuse_lazy
from dwf.trust import refuse_stranger


def import_network(config: PythonConfig) -> nn.Module:
    """Return what the factory `config.target` makes of `config.arguments`.

    The folder where the command was given is searched last, so that a file of the user's there is
    found by worker processes and cluster jobs too, which start in it.

    Raises:
        ConfigError: the user has not named the target (see `dwf.trust`), the module cannot be
            imported, has no such factory, the factory fails, or what it returns is no `nn.Module`,
            one with lazy layers, or one whose BatchNorm has no running statistics.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    refuse_stranger(config.target, "network.target")
    factory = _find(config.target)
    given = ", ".join(f"{name}={value!r}" for name, value in config.arguments.items())
    call = f"{config.target}({given})"
    try:
        network = factory(**config.arguments)
    except Exception as error:  # the user's code: any of its errors is theirs to mend
        raise ConfigError(
            f"network.target: {call} failed with {type(error).__name__}: {_line(error)}; "
            "mend the factory or network.arguments"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"network.target: {call} returned {type(network).__name__}, expected a torch.nn.Module"
        )
    refuse_lazy(network, call)
    _refuse_without_statistics(network, call)
    protect_inputs(network)
    return network


def _refuse_without_statistics(network: nn.Module, call: str) -> None:
    """Such a network answers differently with other images in the batch: it has no accuracy."""
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ConfigError(
                f"network.target: {call} has {name or 'a'} {type(module).__name__} without running "
                "statistics, so its answers depend on the other images of a batch: set "
                "track_running_stats=True there"
            )


def _place(module: ModuleType) -> str:
    """Return in brackets where a module lies: another of the user's module's name may be found."""
    file = vars(module).get("__file__")
    return f" ({file})" if file else ""


def _find(target: str) -> Callable[..., object]:
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # at import a module of the user's can raise anything
        raise ConfigError(
            f"network.target = {target!r}: cannot import {module_name}: {type(error).__name__}: "
            f"{_line(error)}; give the command in the folder that holds it, or install its package"
        ) from error
    found: object = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"network.target = {target!r}: {module_name}{_place(module)} has no {name}{hint}"
            ) from None
    if not callable(found):
        raise ConfigError(
            f"network.target = {target!r}: {name} is {type(found).__name__}, expected a function "
            "or class that returns a torch.nn.Module"
        )
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
