"""Labels of products of activations: matmul, einsum, attention.

Shape suffixes: B images, L tokens, C channels.
"""

import math
from collections.abc import Sequence

import torch

from dwf.align.trace.algebra import meet, reduce
from dwf.align.trace.labels import Labels, compact, constant_along, mix, narrowed
from dwf.align.trace.layers import project, taken_axis
from dwf.align.trace.tracer import Traced, Tracer


def product(tracer: Tracer, input: Traced, other: Traced) -> Traced:
    """`torch.matmul` of activations, or of one with a matrix."""
    if isinstance(other, Traced) and other.weight is not None and len(other.weight.shape) == 2:
        return project(tracer, input, other.weight, None, 1 - taken_axis(other.weight))
    weight = input.weight if isinstance(input, Traced) else None
    if weight is not None and len(weight.shape) == 2 and other.dim() > 1:  # W x is x^T W^T, turned
        turned = tracer.make(tracer.labels(other)).mT
        return project(tracer, turned, weight, None, taken_axis(weight)).mT
    if input.dim() < 2 or other.dim() < 2:
        tracer.refuse("a product with a vector is not followed; write it as a sum")
    x, y = tracer.labels(input), tracer.labels(other)
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (v.apply(lambda t: t.expand(*batch, *t.shape[-2:])) for v in (x, y))
    varies = [not constant_along(v.unit, axis) for v in (x, y) for axis in (-2, -1)]
    slot = _product_of_slots(x.slot, y.slot)
    if not varies[0] and not varies[3]:
        return _contract(tracer, x, y, slot)
    if not varies[0] and not varies[1] and not varies[2]:
        return _carry(tracer, x, y, slot)
    if not varies[1] and not varies[2] and not varies[3]:
        turned = [v.apply(lambda t: t.mT) for v in (y, x)]
        made = _carry(tracer, *turned, slot.mT)
        return tracer.make(tracer.labels(made).apply(lambda t: t.mT))
    return tracer.refuse(
        "a product whose factors both have units along axes that remain, or one along the axis "
        "that is summed: two orders of one result are not followed"
    )


def _product_of_slots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    shape = (*left.shape[:-1], right.shape[-1])
    num = left.shape[-1]
    # A number is a sum over k of left k times right k; of the hashes, too: so the order of k is
    # forgotten, and which left goes with which right is not.
    left, right = mix(compact(left)), mix(compact(right), 1)
    if left.shape[-1] == 1 or right.shape[-2] == 1:
        left, right = left.sum(-1, keepdim=True), right.sum(-2, keepdim=True)
        return (left * right + num).expand(shape)
    return (left @ right).expand(shape)


def _contract(tracer: Tracer, x: Labels, y: Labels, slot: torch.Tensor) -> Traced:
    """Queries times keys: the units along the axis that is summed are shared."""
    structure, step = tracer.structure, tracer.step
    last = x.apply(lambda t: t[..., 0, :]), y.apply(lambda t: t[..., 0])
    meet(tracer, last[0].unit, last[1].unit)
    for v, axis in ((x, -2), (y, -1)):
        how = mix(step, compact(v.slot)).sum(axis)
        structure.use(narrowed(v.unit).amax(axis), how)
        # q s times k / s would stay the same, but the two are one unit with one scale, s for both.
        structure.pin_wires(v.wire)
    structure.mark("query_key", x.unit)
    structure.mark("query_key", y.unit)
    unit = last[0].unit if compact(last[0].unit).any() else last[1].unit
    nobody = torch.zeros((), dtype=torch.int64).expand(unit.shape)
    summed = tracer.labels(
        reduce(tracer, tracer.make(Labels(unit, nobody, wire=nobody)), -1, False, "other")
    )
    shape = slot.shape
    return tracer.make(
        Labels(
            summed.unit[..., None, None].expand(shape),
            slot,
            wire=torch.zeros((), dtype=torch.int64).expand(shape),
        )
    )


def _carry(tracer: Tracer, x: Labels, y: Labels, slot: torch.Tensor) -> Traced:
    """Attention times values: units lie along an axis that remains."""
    structure, shape = tracer.structure, slot.shape
    # The weights belong to a head (`_contract` reduced its units to a block): so the values that
    # they weigh lie in it, and queries, keys and values move as one head.
    meet(tracer, x.unit[..., :1, :1], y.unit[..., :1, :])
    unit = y.unit[..., :1, :]
    structure.mark("value_output", y.unit)
    if compact(x.wire).any():
        structure.pin_wires(x.wire)
        structure.pin_wires(y.wire)
    structure.wires.unite(y.wire, y.wire[..., :1, :])
    return tracer.make(Labels(unit.expand(shape), slot, wire=y.wire[..., :1, :].expand(shape)))


def einsum(
    tracer: Tracer, equation: str, *operands: torch.Tensor | Sequence[torch.Tensor]
) -> Traced:
    """`torch.einsum` of one or two tensors: written as a matmul, axes in order."""
    if operands and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    given, _, out = equation.replace(" ", "").partition("->")
    names = given.split(",")
    plain = all(len(set(letters)) == len(letters) for letters in [*names, out])
    if "->" not in equation or "." in equation or len(operands) > 2 or not plain:
        tracer.refuse(f"{equation!r} is not followed, only products of two with named axes are")
    if len(operands) == 1:
        return _in_order(_summed(operands[0], names[0], out), names[0], out)
    first, second = (isinstance(x, Traced) and x.weight is not None for x in operands)
    if first and not second:  # a matrix stands behind what it is multiplied with
        return einsum(tracer, f"{names[1]},{names[0]}->{out}", *reversed(operands))
    left, right = (
        (_summed(x, own, out + other), "".join(c for c in own if c in out + other))
        for x, own, other in zip(operands, names, reversed(names), strict=True)
    )
    batch = "".join(c for c in left[1] if c in right[1] and c in out)
    inner = "".join(c for c in left[1] if c in right[1] and c not in out)
    rows, columns = (
        "".join(c for c in own if c in out and c not in batch) for _, own in (left, right)
    )
    sizes = {c: n for x, own in (left, right) for c, n in zip(own, x.shape, strict=True)}
    if not inner:
        spread = [_in_order(x, own, out) for x, own in (left, right)]
        return spread[0] * spread[1]
    a = _flat(*left, (*batch, rows, inner), sizes, bool(batch))
    b = _flat(*right, (*batch, inner, columns), sizes, bool(batch))
    made = a @ b
    shape = [sizes[c] for c in batch + rows + columns]
    return _in_order(made.reshape(shape), batch + rows + columns, out)


def _summed(tensor: torch.Tensor, letters: str, kept: str) -> torch.Tensor:
    """Sum over the axes that nobody asks for."""
    gone = [a for a, c in enumerate(letters) if c not in kept]
    return tensor.sum(gone) if gone else tensor


def _in_order(tensor: torch.Tensor, letters: str, out: str) -> torch.Tensor:
    """Axes as in `out`, one of size 1 where a tensor has none."""
    own = [c for c in letters if c in out]
    order = sorted(range(len(own)), key=lambda a: out.index(own[a]))
    if order != list(range(len(own))):
        tensor = tensor.permute(order)
    index = tuple(slice(None) if c in own else None for c in out)
    return tensor[index] if None in index else tensor


def _flat(
    tensor: torch.Tensor,
    letters: str,
    wanted: tuple[str, ...],
    sizes: dict[str, int],
    stacked: bool,
) -> torch.Tensor:
    """Axes in the order wanted, those named together flattened into one; a matrix as it is."""
    order = [letters.index(c) for c in "".join(wanted)]
    if len(order) == 2 and not stacked:
        return tensor if order == [0, 1] else tensor.transpose(0, 1)
    shape = [math.prod(sizes[c] for c in together) for together in wanted]
    return tensor.permute(order).reshape(shape)


def attention(
    tracer: Tracer,
    query: Traced,
    key: Traced,
    value: Traced,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Traced:
    """`functional.scaled_dot_product_attention`."""
    if dropout_p or enable_gqa:
        tracer.refuse("attention with dropout or shared keys is not followed")
    scores = query @ key.transpose(-2, -1)
    scores = scores if attn_mask is None else scores + attn_mask
    return torch.softmax(scores, -1) @ value


def multi_head_attention(
    tracer: Tracer,
    query: Traced,
    key: Traced,
    value: Traced,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Traced,
    in_proj_bias: Traced,
    bias_k: torch.Tensor | None,
    bias_v: torch.Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Traced,
    out_proj_bias: Traced,
    training: bool = False,
    attn_mask: torch.Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: torch.Tensor | None = None,
    k_proj_weight: torch.Tensor | None = None,
    v_proj_weight: torch.Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    **kwargs: object,
) -> tuple[Traced, Traced | None]:
    """`functional.multi_head_attention_forward`: tokens first, [L, B, C]."""
    if bias_k is not None or bias_v is not None or add_zero_attn or query.dim() != 3:
        tracer.refuse("attention with added keys, or without a batch, is not followed")
    linear_ = torch.nn.functional.linear
    weights = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = weights if use_separate_proj_weight else in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    heads = [
        linear_(x, w, b).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    ]
    mixed = attention(tracer, *heads, attn_mask)
    out = linear_(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if not need_weights:
        return out, None
    scores = torch.softmax(heads[0] @ heads[1].transpose(-2, -1), -1)
    return out, scores.mean(1) if average_attn_weights else scores
