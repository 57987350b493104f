"""Labels of layers: products with weights, and normalisations.

Shape suffixes: B images, C channels, O outputs, I inputs, G groups.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dwf.align.trace.algebra import channelwise, pair, positions, reduce
from dwf.align.trace.labels import Labels, constant_along, mix, narrowed
from dwf.align.trace.tracer import Traced, Tracer, Weight


def weight_of(tracer: Tracer, weight: torch.Tensor) -> Weight:
    """Return the parameter that a layer multiplies with."""
    if not isinstance(weight, Traced) or weight.weight is None:
        tracer.refuse(
            "its weight is computed from other numbers, or is no parameter of the layout; use a "
            "parameter itself"
        )
    return weight.weight


def linear(
    tracer: Tracer, input: Traced, weight: Traced, bias: torch.Tensor | None = None
) -> Traced:
    """`functional.linear`."""
    weight = weight_of(tracer, weight)
    return project(tracer, input, weight, bias, taken_axis(weight))


def taken_axis(weight: Weight) -> int:
    """Return the axis of a parameter that stands as the second of its matrix here."""
    return 0 if weight.transposed else 1


def project(
    tracer: Tracer, input: Traced, weight: Weight, bias: torch.Tensor | None, taken: int
) -> Traced:
    """Multiply the last axis with a weight whose axis `taken` runs over inputs."""
    if len(weight.shape) != 2:
        tracer.refuse(f"{weight.name} is no matrix; use one layer for each")
    x, given = tracer.labels(input), 1 - taken
    if x.shape[-1] != weight.shape[taken]:
        tracer.refuse(f"{x.shape[-1]} numbers meet {weight.shape[taken]} columns of {weight.name}")
    shape = (*x.shape[:-1], weight.shape[given])
    unit_O, wire_O = tracer.rows(weight, given)
    if constant_along(x.unit, -1) and narrowed(x.unit).numel() > 1:
        out = _beside(tracer, x, weight, taken, unit_O, shape)
    else:
        tracer.bind(weight, taken, columns=tracer.structure.columns(x, -1))
        out = made_units(unit_O, wire_O, shape=shape, axis=-1)
    made = tracer.make(out)
    return made if bias is None else pair(tracer, made, bias, "add")


def made_units(
    unit_O: torch.Tensor, wire_O: torch.Tensor, *, shape: Sequence[int], axis: int
) -> Labels:
    """Label what a weight gives along an axis."""
    view = [1] * len(shape)
    view[axis] = -1
    unit, wire = unit_O.view(view), wire_O.view(view)
    slot = positions(shape, axis)
    # Where a weight gives what it takes in elsewhere, as the pixels that a tied decoder makes,
    # numbers are no units: each is told apart by its place.
    if (unit == 0).any():
        place = torch.arange(1, 1 + len(unit_O)).view(view)
        slot = torch.where(unit == 0, mix(slot, place), slot)
    return Labels(unit, slot, wire=wire).apply(lambda t: t.expand(shape))


def _beside(
    tracer: Tracer, x: Labels, weight: Weight, taken: int, unit_O: torch.Tensor, shape: tuple
) -> Labels:
    """Multiply an axis of fixed places of tensors whose units lie on other axes."""
    structure = tracer.structure
    nobody = torch.zeros(weight.shape[taken], dtype=torch.int64)
    tracer.bind(weight, taken, columns=Labels(nobody, nobody, wire=nobody))
    # What the weight makes would be a second axis of units beside the first, which labels have no
    # room for. So its rows stay: an order of a Mixer's hidden places is missed, none is wrong.
    structure.pinned.append(unit_O.numpy())
    structure.pin_wires(x.wire)
    slot = mix(mix(x.slot).sum(-1, keepdim=True), torch.arange(shape[-1]))
    still = torch.zeros((), dtype=torch.int64)
    return Labels(x.unit[..., :1].expand(shape), slot.expand(shape), wire=still.expand(shape))


def convolution(
    tracer: Tracer,
    input: Traced,
    weight: Traced,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Traced:
    """`functional.conv1d`, `conv2d` and `conv3d`."""
    weight, dims = weight_of(tracer, weight), weight.dim() - 2
    if input.dim() != dims + 2:
        tracer.refuse(f"images of {input.dim()} axes; give it a batch of them")
    given, taken = weight.shape[:2]
    if input.shape[1] != taken * groups or given % groups:
        tracer.refuse(
            f"{input.shape[1]} channels and {given} filters of {taken} channels do not divide into "
            f"groups = {groups}"
        )
    x = torch.empty(input.shape, device="meta")
    kernel = torch.empty(weight.shape, device="meta")
    layer = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    shape = layer(x, kernel, None, stride, padding, dilation, groups).shape
    columns_C = tracer.structure.columns(tracer.labels(input), 1)
    tracer.bind(weight, 1, columns=columns_C, blocks=groups)
    unit_O, wire_O = tracer.rows(weight, 0)
    if groups > 1:
        _group(tracer, weight, columns_C, unit_O, groups)
    return _channels(tracer, unit_O, wire_O, shape, bias)


def _channels(
    tracer: Tracer,
    unit_O: torch.Tensor,
    wire_O: torch.Tensor,
    shape: Sequence[int],
    bias: torch.Tensor | None,
) -> Traced:
    """Label what a convolution gives, [B, O, ...]."""
    made = tracer.make(made_units(unit_O, wire_O, shape=shape, axis=1))
    return (
        made if bias is None else pair(tracer, made, bias[(..., *[None] * (len(shape) - 2))], "add")
    )


def _group(
    tracer: Tracer, weight: Weight, columns_C: Labels, unit_O: torch.Tensor, groups: int
) -> None:
    """Tie what each group of a grouped convolution takes in to what it gives."""
    structure = tracer.structure
    taken_GI, given_GO = columns_C.unit.view(groups, -1), unit_O.view(groups, -1)
    fixed_GI = taken_GI == 0
    if fixed_GI.any():  # the blocks stay where the images' channels are
        how_G1 = torch.where(fixed_GI, mix(columns_C.slot.view(groups, -1)), 0).sum(1, keepdim=True)
        structure.use(given_GO, mix(tracer.step, how_G1))
    if taken_GI.shape[1] == given_GO.shape[1] == 1:
        structure.atoms.unite(taken_GI, given_GO)
        return
    sets = {np.unique(structure.atoms.find(taken_I)).tobytes() for taken_I in taken_GI}
    if len(sets) < groups:  # some take in the same units, though in other places
        structure.use(given_GO, mix(tracer.step, torch.arange(groups)[:, None]))
    if taken_GI.shape[1] == 1:  # what takes a unit in is moved with what it makes
        structure.pin_wires(columns_C.wire)
    # A group takes in one set of units and gives another: one block holds both, so that where it
    # moves they move together, while each set keeps an order of its own.
    for taken_I, given_O in zip(taken_GI, given_GO, strict=True):
        sets = [units.numpy() for units in (taken_I[taken_I > 0], given_O)]
        blocks = [structure.block_of(units) for units in sets if len(units)]
        structure.atoms.unite(torch.tensor(blocks[:1]), torch.tensor(blocks[-1:]))


def transposed_convolution(
    tracer: Tracer,
    input: Traced,
    weight: Traced,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Traced:
    """`functional.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`."""
    if groups != 1:
        tracer.refuse("transposed convolutions with groups are not followed; use groups = 1")
    weight, dims = weight_of(tracer, weight), weight.dim() - 2
    layer = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[dims - 1]
    x = torch.empty(input.shape, device="meta")
    kernel = torch.empty(weight.shape, device="meta")
    shape = layer(x, kernel, None, stride, padding, output_padding, 1, dilation).shape
    tracer.bind(weight, 0, columns=tracer.structure.columns(tracer.labels(input), 1))
    return _channels(tracer, *tracer.rows(weight, 1), shape, bias)


def normalise(
    tracer: Tracer,
    x: Traced,
    dims: Sequence[int],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> Traced:
    """Divide by something that depends on all numbers along axes; then scale and shift."""
    together = reduce(tracer, x, dims, True, "other")
    return affine(tracer, pair(tracer, x, together, "other"), weight, bias)


def affine(
    tracer: Tracer, x: Traced, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> Traced:
    """Scale and shift numbers whose scale is fixed."""
    labels = tracer.labels(x)
    tracer.structure.pin_wires(labels.wire)
    # The old scale ends here; a new one begins with the norm's weight and bias, which are its
    # makers (power 1) from now on.
    still = torch.zeros((), dtype=torch.int64).expand(labels.shape)
    x = tracer.make(Labels(labels.unit, labels.slot, wire=still))
    x = x if weight is None else pair(tracer, x, weight, "mul")
    return x if bias is None else pair(tracer, x, bias, "add")


def batch_norm(
    tracer: Tracer,
    input: Traced,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    *args: object,
    **kwargs: object,
) -> Traced:
    """`functional.batch_norm`."""
    ones = (..., *[None] * (input.dim() - 2))
    if running_mean is None:  # statistics of the batch, even in evaluation
        input = channelwise(tracer, input, 1, input.shape)
    for statistic in (running_mean, running_var):
        if statistic is not None:
            tracer.statistic(statistic)
            input = pair(tracer, input, statistic[ones], "other")
    weight, bias = (v if v is None else v[ones] for v in (weight, bias))
    return affine(tracer, input, weight, bias)


def layer_norm(
    tracer: Tracer,
    input: Traced,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float | None = None,
) -> Traced:
    """`functional.layer_norm` and `rms_norm`."""
    return normalise(tracer, input, range(-len(normalized_shape), 0), weight, bias)


def group_norm(
    tracer: Tracer,
    input: Traced,
    num_groups: int,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Traced:
    """`functional.group_norm`."""
    split = input.unflatten(1, (num_groups, -1))
    together = normalise(tracer, split, range(2, split.dim()), None, None).flatten(1, 2)
    ones = (..., *[None] * (input.dim() - 2))
    weight, bias = (v if v is None else v[ones] for v in (weight, bias))
    return affine(tracer, together, weight, bias)


def instance_norm(
    tracer: Tracer,
    input: Traced,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *args: object,
    **kwargs: object,
) -> Traced:
    """`functional.instance_norm`."""
    return batch_norm(tracer, input, running_mean, running_var, weight, bias)


def local_response_norm(tracer: Tracer, input: Traced, *args: object, **kwargs: object) -> Traced:
    """`functional.local_response_norm`: neighbours matter, so no channel can move."""
    return tracer.refuse(
        "each channel is divided by its neighbours, so that no order of them is free; use a "
        "normalisation over all channels or over groups of them"
    )
