"""Run a module on labels, and read from them which of its axes permute together."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dwf.align.constants import constants_of, with_constants_drawn
from dwf.align.groups import Group
from dwf.align.trace.labels import Labels, mix
from dwf.align.trace.operations import FOLLOWED
from dwf.align.trace.read_groups import read_groups
from dwf.align.trace.tracer import Traced, Tracer
from dwf.errors import ConfigError
from dwf.metrics import logger
from dwf.networks.checks import evaluating
from dwf.zoo.layout import Layout


def trace_groups(
    network: nn.Module, layout: Layout, *, input_shape: tuple[int, ...]
) -> tuple[Group, ...]:
    """Return the groups of axes that permute together.

    Args:
        network: any module; its weights take no part, and it is left as it was.
        layout: the layout of its tensors.
        input_shape: shape of one image, or table row, without the batch.

    Raises:
        ConfigError: the trace met what it cannot follow, and where.
    """
    tracer = trace(network, layout, input_shape=input_shape)
    learnt = [entry.name for entry in layout.entries if entry.is_learnt]
    unseen = [name for name in learnt if not tracer.has_seen(name)]
    if unseen:
        logger.warning(
            "evaluation does not use all parameters, and an alignment leaves the others as they "
            "are, whatever takes them in when a network is trained on: %s were not seen",
            ", ".join(unseen),
        )
    return read_groups(tracer, layout)


def trace(network: nn.Module, layout: Layout, *, input_shape: tuple[int, ...]) -> Tracer:
    """Follow a batch of two images through a network.

    Args:
        network: any module; its weights take no part, and it is left as it was.
        layout: the layout of its tensors, whose axes may be permuted.
        input_shape: of one image.

    Raises:
        ConfigError: the trace met what it cannot follow, and where.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ConfigError(
            f"the network ({type(network).__name__}): it holds compiled TorchScript, which cannot "
            "be followed; build it from plain modules"
        )
    tracer = Tracer(
        {entry.name: entry.shape for entry in layout.entries},
        FOLLOWED,
        constants=constants_of(network, layout),
    )
    swapped = {name: tracer.parameter(name, shape) for name, shape in tracer.sizes.items()}
    network = with_constants_drawn(network, layout, random=torch.Generator().manual_seed(0))
    number = torch.arange(1, 1 + 2 * torch.Size(input_shape).numel()).view(2, *input_shape)
    nobody = torch.zeros((), dtype=torch.int64).expand(number.shape)
    images = tracer.make(Labels(nobody, mix(number, 1), wire=nobody))
    eager = torch.compiler.set_stance("force_eager")
    with evaluating(network), _followed(network, tracer), torch.no_grad(), eager:
        try:
            output = torch.func.functional_call(network, swapped, (images,), strict=False)
        except ConfigError:
            raise
        except Exception as error:
            if tracer.refusal is not None:  # within compiled code, which wraps what is raised
                raise tracer.refusal from error
            raise ConfigError(
                f"{(tracer.where or ['the network'])[-1]}: cannot be run on images of shape "
                f"{list(input_shape)} ({type(error).__name__}: {error})"
            ) from error
    tracer.where = []
    if not isinstance(output, Traced):
        raise ConfigError(
            f"the network ({type(network).__name__}): it gives {type(output).__name__}, not one "
            "tensor computed by torch's functions; return the logits alone"
        )
    labels = tracer.labels(output)
    tracer.structure.pinned.append(labels.unit.reshape(-1).unique().numpy())
    tracer.structure.mark("output", labels.unit)
    tracer.structure.pin_wires(labels.wire)
    return tracer


@contextmanager
def _followed(network: nn.Module, tracer: Tracer) -> Iterator[None]:
    """Keep the tracer told which module is running."""
    hooks = []
    for name, module in network.named_modules():
        label = f"{name or 'the network'} [{type(module).__name__}]"
        hooks.append(
            module.register_forward_pre_hook(lambda *_, label=label: tracer.where.append(label))
        )
        hooks.append(module.register_forward_hook(lambda *_: tracer.where.pop() and None))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
