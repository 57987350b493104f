"""The one check of a network of the user's own, and what names its code."""

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

from dwf import source
from dwf.networks.config import PythonConfig
from dwf.networks.sound import elsewhere
from dwf.networks.sound.trial import Trial

_IMAGES = 8


def source_digest(config: PythonConfig, network: nn.Module) -> str:
    """Return a short name of the code that a network is made of.

    Args:
        config: its settings; the source of the target counts, see `dwf.source`.
        network: the source of its modules' classes counts, but for torch's.
    """
    names = {config.target.partition(":")[0]}
    names |= {type(module).__module__ for module in network.modules()}
    told = [
        f"{name} {source.source_digest(name)}" for name in sorted(names) if not _is_torchs(name)
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _is_torchs(module: str) -> bool:
    return module.partition(".")[0] == "torch"


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
