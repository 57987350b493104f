"""Where to compute: on the CPU, or on a GPU where there is one."""

import torch

from dwf.errors import ConfigError


def find_device(choice: str, *, elsewhere: bool = False) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`.

    Args:
        choice: `auto` is a GPU if this machine shows one.
        elsewhere: another machine may compute, which may have a GPU that this one lacks.

    Raises:
        ConfigError: `cuda` without a usable GPU.
    """
    there = torch.cuda.is_available()
    if choice == "cuda" and not there and not elsewhere:
        raise ConfigError("device = 'cuda': torch finds no GPU here; set auto or cpu")
    if choice == "auto":
        choice = "cuda" if there else "cpu"
    return torch.device(choice)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bf16; emulated they are slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    knows = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private: another may lack it
    return knows is not None and knows()
