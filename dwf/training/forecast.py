"""A forecast of what training takes, in words: parameters, ranks, memory of each."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from dwf.compute import Gpus
from dwf.devices import find_device
from dwf.errors import TooLarge
from dwf.room import machine_bytes
from dwf.training.config import LoopConfig
from dwf.training.deepspeed_config import read_settings
from dwf.training.memory import memory_of_training
from dwf.training.task import Share

# What is left when libraries and fragments of memory have had their part.
_USABLE = 0.9
# Dense bf16 of an H100 SXM (NVIDIA's data sheet), and a use of it that large transformers reach.
_STATED_PEAK, _STATED_USE = 989e12, 0.4


def describe_training(
    module: nn.Module,
    config: LoopConfig,
    *,
    share: Share,
    key: str,
    activations: int = 0,
    hints: Sequence[str] = (),
    gpus: Gpus | None = None,
) -> str:
    """Return in words what is trained, by which ranks, and what that takes of memory.

    It is memory of each GPU where training is planned for GPUs, else of each process.

    Args:
        module: what is trained; may be on the device `meta`.
        config: of the loop.
        share: one rank's part of a batch.
        key: dotted key of `config`, for flags that would help.
        activations: bytes that the backward needs of one micro-batch; 0: not counted.
        hints: flags that lower `activations`.
        gpus: those of the site that it is planned for; None: of this machine.

    Raises:
        ConfigError: the settings of DeepSpeed are wrong.
    """
    parameters = sum(p.numel() for p in module.parameters())
    need = _need(module, config, share=share, activations=activations)
    on_gpus = _is_for_gpus(config.compute.device, gpus)
    room = gpus.memory_gb if gpus and on_gpus else None
    is_for_here = gpus is None and not on_gpus
    return "\n".join(
        [
            f"{parameters:,} parameters; {_describe_ranks(config, share)}",
            f"memory per {'GPU' if on_gpus else 'process'}: {_sizes(need)}",
            *_advice(need, key, hints, room),
            *(_warning(need, share, key, hints) if is_for_here else ()),
        ]
    )


def _is_for_gpus(device: str, gpus: Gpus | None) -> bool:
    if device == "auto" and gpus is not None:
        return gpus.per_node > 0
    return find_device(device, elsewhere=True).type == "cuda"


def refuse_no_room(
    module: nn.Module,
    config: LoopConfig,
    *,
    share: Share,
    key: str,
    activations: int = 0,
    hints: Sequence[str] = (),
) -> None:
    """Refuse, where the work starts, a training for which its device has too little memory.

    Args:
        module: what is to be trained.
        config: of the loop.
        share: this rank's part of a batch.
        key: dotted key of `config`.
        activations: bytes that the backward needs of one micro-batch; 0: not counted.
        hints: flags that lower `activations`.

    Raises:
        TooLarge: so it is; names the setting that would fit, if one does.
        ConfigError: the settings of DeepSpeed are wrong.
    """
    need = _need(module, config, share=share, activations=activations)
    device = find_device(config.compute.device)
    room = device_bytes(device)
    if need["total"] > room:
        where = "the GPU has" if device.type == "cuda" else "this machine's memory has"
        raise TooLarge(
            f"{key}: training takes {_sizes(need)}, and {where} {room / 2**30:,.1f} GiB: "
            f"{_that_fits(need, room, share, key, hints)}"
        )


def _need(
    module: nn.Module, config: LoopConfig, *, share: Share, activations: int
) -> dict[str, int]:
    """Return what training takes on each rank, in bytes; see `memory_of_training`."""
    sizes = [p.numel() for p in module.parameters()]
    return memory_of_training(
        config, sum(sizes), world=share.world, activations=activations, largest_layer=max(sizes)
    )


def device_bytes(device: torch.device) -> int:
    """Return the bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_bytes()


def _that_fits(
    need: dict[str, int], room: int, share: Share, key: str, hints: Sequence[str]
) -> str:
    """Return in words the setting with which a training fits, or what brings it nearer."""
    free = room - (need["total"] - need["activations"])
    an_example = need["activations"] // share.micro
    each = share.batch_size // share.world
    for accumulate in range(share.accumulate + 1, each + 1):
        if each % accumulate == 0 and an_example * (each // accumulate) <= free:
            return f"set --{key}.accumulate {accumulate}, which fits"
    return f"try {', '.join([*hints, 'a smaller network, or fewer numbers in a code'])}"


def _warning(need: dict[str, int], share: Share, key: str, hints: Sequence[str]) -> Iterator[str]:
    """Yield that this machine's memory is too little, if it is."""
    room = machine_bytes()
    if need["total"] > room:
        yield (
            f"WARNING: with the {room / 2**30:,.1f} GiB of this machine it is refused: "
            f"{_that_fits(need, room, share, key, hints)}"
        )


def describe_speed(multiplications: float, share: Share) -> str:
    """Return in words how many updates an hour a stated use of a stated GPU would give.

    Args:
        multiplications: of one evaluation for one example.
        share: one rank's part of a batch.
    """
    # Two operations a multiplication, and twice the forward's in the backward.
    operations = 3 * 2 * multiplications * share.micro * share.accumulate
    steps = 3600 * _STATED_USE * _STATED_PEAK / operations
    small = "; under 1 ms of arithmetic a step: what a step costs besides decides"
    said = (
        f"steps an hour: {steps:,.0f} at {_STATED_USE:.0%} of {_STATED_PEAK / 1e12:.0f} TFLOP/s a "
        "GPU (an H100 or H200 in bf16; assumed, not measured)"
    )
    return said + small if steps > 3_600_000 else said


def _describe_ranks(config: LoopConfig, share: Share) -> str:
    how = f"engine {config.engine}"
    if config.engine == "deepspeed":
        settings = read_settings(config)
        offload = "" if settings.offload == "none" else f", {settings.offload} offloaded"
        how += f" (ZeRO stage {settings.stage}{offload})"
    return (
        f"{how}, ranks: {share.world}, batch {share.batch_size} as {share.world} x "
        f"{share.accumulate} x {share.micro}"
    )


def _sizes(need: dict[str, int]) -> str:
    """All sizes in one unit, that of the total."""
    unit, divisor = ("GiB", 2**30) if need["total"] >= 2**30 else ("MiB", 2**20)
    parts = (f"{name} {size / divisor:.2f}" for name, size in need.items() if size)
    return f"{', '.join(parts)} {unit}"


def _advice(
    need: dict[str, int], key: str, hints: Sequence[str], gpu_memory_gb: float | None
) -> Iterator[str]:
    """Yield whether it fits, and, where it does not, what would help."""
    if gpu_memory_gb is None:
        return
    total, room = need["total"], gpu_memory_gb * 2**30 * _USABLE
    if total <= room:
        yield f"fits a GPU of {gpu_memory_gb:g} GiB"
        return
    helps = []
    if need["activations"] > total / 4:
        helps += [*hints, f"a larger --{key}.accumulate, for smaller micro-batches"]
    if total - need["activations"] > room / 2:
        helps.append("more nodes")
        helps.append(f"--engine deepspeed --{key}.deepspeed configs/deepspeed/zero3.json")
        helps.append("or zero3_offload.json")
    yield (
        f"does NOT fit a GPU of {gpu_memory_gb:g} GiB, a tenth of which is left to libraries: try "
        + ", ".join(helps)
    )
