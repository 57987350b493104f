"""The one check of a network of the user's own, and what names its code."""

import contextlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dwf.networks.config import PythonConfig
from dwf.networks.sound import elsewhere
from dwf.networks.sound.reachable import digest_of
from dwf.networks.sound.trial import Trial

_IMAGES = 8


def source_digest(config: PythonConfig, network: nn.Module) -> str:
    """Return a short name of the code that a network is made of.

    Args:
        config: its settings; the file of the target's module counts.
        network: the files of its modules' classes count, but for torch's.
    """
    names = {config.target.partition(":")[0]}
    names |= {type(module).__module__ for module in network.modules()}
    told = []
    for name in sorted(name for name in names if name.split(".")[0] != "torch"):
        with contextlib.suppress(TypeError, OSError, KeyError):  # of a module without a file
            source = Path(inspect.getfile(sys.modules[name])).read_bytes()
            told.append(f"{name} {digest_of(np.frombuffer(source, np.uint8))}")
    return digest_of(np.frombuffer("\n".join(told).encode(), np.uint8)).rpartition(" ")[2]


def refuse_unsound(
    config: PythonConfig, images: torch.Tensor, *, initialisations: Iterable[str] = ("default",)
) -> None:
    """Refuse a network whose rows would not determine what it computes.

    It is built several times under different random numbers, here and in another process, and run
    on a few images with one row laid in, in evaluation and in training mode.

    Args:
        config: the network's settings.
        images: [B, *shape], float32, as a network takes them; the first few are used.
        initialisations: the recipe's, see `dwf.networks.initialisation`.

    Raises:
        ConfigError: names the tensor or module that decides beside the row, and the cure.
    """
    trial = Trial(config, images[:_IMAGES].clone(), initialisations=sorted(set(initialisations)))
    if config.target.partition(":")[0] == "__main__":
        trial.refuse(
            "the script that was started is not there for other processes to import",
            "move the network to a file of its own, and name that",
        )
    here = trial.findings()
    elsewhere.refuse_otherwise(trial, here, there=elsewhere.examine_elsewhere(trial))
