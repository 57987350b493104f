"""How much memory training takes on each GPU, from sizes alone.

Weights, gradients and optimiser state as ZeRO shares them: Rajbhandari et al., arXiv 1910.02054,
section 3, with the buffers that DeepSpeed's own estimates count. Activations of a transformer:
Korthikanti et al., arXiv 2205.05198, equation 2, without the attention map, which the fused kernels
do not keep.
"""

import math
from collections.abc import Callable, Iterable

import torch

from dwf.training.config import LoopConfig
from dwf.training.deepspeed_config import read_settings

# Bytes of a number: Adam holds a float32 master copy and two moments for ZeRO's share.
_FLOAT, _HALF, _MOMENTS = 4, 2, 8
# DeepSpeed's factor for buffers in the machine's memory.
_BUFFERS = 1.5


def memory_per_gpu(
    parameters: int,
    stage: int = 0,
    *,
    world: int = 1,
    offload: str = "none",
    bf16_weights: bool = False,
    autocast: bool = False,
    ema: bool = False,
    activations: int = 0,
    largest_layer: int = 0,
) -> dict[str, int]:
    """Return bytes on each GPU by what they hold, their `total`, and `host` of each rank.

    Args:
        parameters: numbers that are trained.
        stage: of ZeRO; 0: every rank holds all, as with the engines `plain` and `ddp`.
        world: ranks, one for each GPU.
        offload: what lies in the machine's memory: `none`, `optimizer` or `parameters` (both).
        bf16_weights: weights are bf16, and float32 for the optimiser.
        autocast: bf16 arithmetic with float32 weights.
        ema: a moving average is kept.
        activations: bytes that the backward needs of one micro-batch: see `activation_bytes`.
        largest_layer: numbers of the largest layer, which stage 3 brings together.
    """
    width = _HALF if bf16_weights else _FLOAT
    need = {
        "weights": _weights(parameters, stage, world, offload, width, largest_layer),
        "gradients": _gradients(parameters, stage, world, offload, width),
        "optimizer": _optimizer(parameters, stage, world, offload),
        "average": _FLOAT * parameters if ema else 0,
        "activations": activations,
    }
    if autocast and stage < 3:  # the casts of all weights are kept until the backward's end
        need["weights"] += _HALF * parameters
    return need | {"total": sum(need.values()), "host": _host(parameters, world, offload)}


def _weights(p: int, stage: int, world: int, offload: str, width: int, largest: int) -> int:
    if stage < 3:
        return width * p
    return _FLOAT * largest + (0 if offload == "parameters" else _share(width * p, world))


def _gradients(p: int, stage: int, world: int, offload: str, width: int) -> int:
    if stage == 0:
        return width * p
    whole = width * p if stage == 1 else 0
    if offload != "none":
        return whole
    shared = {1: _FLOAT, 2: width + _FLOAT, 3: 2 * width}[stage]
    return whole + _share(shared * p, world)


def _optimizer(p: int, stage: int, world: int, offload: str) -> int:
    if stage == 0:
        return _MOMENTS * p
    return 0 if offload != "none" else _share((_FLOAT + _MOMENTS) * p, world)


def _host(p: int, world: int, offload: str) -> int:
    """Each rank builds the module before it is shared; what is offloaded stays."""
    kept = {"none": 0, "optimizer": 16, "parameters": 18}[offload]
    return math.ceil(p * max(_FLOAT, kept / world) * _BUFFERS)


def _share(number: int, world: int) -> int:
    return math.ceil(number / world)


def activation_bytes(
    tokens: int,
    width: int,
    *,
    depth: int,
    expansion: int = 4,
    half: bool = False,
    checkpointing: bool = False,
) -> int:
    """Return what a transformer's backward needs of a micro-batch, in bytes.

    Args:
        tokens: of all examples of a rank's micro-batch together, padding included.
        width: numbers of a token.
        depth: blocks, encoder and decoder together.
        expansion: width of the hidden layer over `width`.
        half: bf16 arithmetic.
        checkpointing: only each block's input is kept, and one block is computed again at a time.
    """
    size = _HALF if half else _FLOAT
    # Two norms' inputs; queries, keys, values, their input and output; the hidden layer twice and
    # its input; two dropout masks of a byte.
    block = tokens * width * ((8 + 2 * expansion) * size + 2)
    return block + depth * tokens * width * size if checkpointing else depth * block


def numbers_in_bytes(numbers: float, config: LoopConfig) -> int:
    """Return the bytes of so many activations in the precision of a training."""
    return round(numbers * (_HALF if config.compute.precision == "bf16" else _FLOAT))


def saved_bytes(run: Callable[[], object], *, but: Iterable[torch.Tensor] = ()) -> int:
    """Return the bytes of what a computation keeps for its backward, each tensor counted once.

    Args:
        run: the computation; on the device `meta` nothing is allocated.
        but: tensors that are there in any case, as parameters.
    """
    there = {tensor.untyped_storage()._cdata for tensor in but}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no other takes its place

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in there:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        held = run()  # what is returned keeps what it saved
    del held
    return sum(storage.nbytes() for storage in kept.values())


def memory_of_training(
    config: LoopConfig, parameters: int, *, world: int, activations: int = 0, largest_layer: int = 0
) -> dict[str, int]:
    """Return `memory_per_gpu` with the engine and precision that settings ask for.

    Args:
        config: of the loop.
        parameters: numbers that are trained.
        world: ranks.
        activations: see `memory_per_gpu`.
        largest_layer: see `memory_per_gpu`.

    Raises:
        ConfigError: see `read_settings`.
    """
    half, ema = config.compute.precision == "bf16", config.ema is not None
    if config.engine != "deepspeed":
        return memory_per_gpu(
            parameters, 0, world=world, autocast=half, ema=ema, activations=activations
        )
    settings = read_settings(config)
    return memory_per_gpu(
        parameters,
        settings.stage,
        world=world,
        offload=settings.offload,
        bf16_weights=settings.bf16,
        autocast=half and not settings.bf16,
        ema=ema,
        activations=activations,
        largest_layer=largest_layer,
    )
