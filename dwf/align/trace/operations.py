"""The torch functions that a trace can follow, by name."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from dwf.align.trace import layers
from dwf.align.trace.algebra import channelwise, pair, reduce
from dwf.align.trace.movement import MOVEMENT, on_shape
from dwf.align.trace.products import attention, einsum, multi_head_attention, product
from dwf.align.trace.tracer import Operations, Result, Traced, Tracer

_SHAPES = """
    shape dtype device ndim size dim ndimension numel nelement stride is_floating_point is_complex
    is_cuda is_cpu is_sparse is_quantized is_nested is_meta is_mps is_xpu requires_grad layout
    get_device element_size is_contiguous is_same_size names grad_fn grad is_leaf itemsize nbytes
    is_signed is_conj is_neg __len__ __hash__ __repr__
"""
PLAIN = frozenset(_SHAPES.split())
"""Functions that ask for a tensor's shape and type alone."""
_NUMBERS = """
    __bool__ __float__ __int__ __index__ __complex__ __array__ __contains__ __format__ item tolist
    numpy nonzero allclose equal masked_select argwhere unique is_nonzero data_ptr
"""
CONTROL = frozenset(_NUMBERS.split())
"""Functions that ask for a tensor's numbers."""
OPERATIONS: dict[str, Callable[..., Result]] = dict(MOVEMENT)
"""Name without underscores at its ends -> function of (tracer, *args, **kwargs)."""


def _add(names: str, function: Callable[..., Result]) -> None:
    OPERATIONS.update(dict.fromkeys(names.split(), function))


UNTOUCHED = frozenset(MOVEMENT) - {"pad", "constant_pad_nd"} | frozenset(
    ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"]
)
"""Functions that leave each number as it is."""


def _elementwise(scale: bool, sign: bool) -> Callable[..., Traced]:
    """Return the operation on single numbers; `scale`, `sign`: whether it passes them through."""

    def apply(tracer: Tracer, tensor: Traced, *args: object, **kwargs: object) -> Traced:
        for other in [*args, *kwargs.values()]:
            if isinstance(other, Traced) or (isinstance(other, torch.Tensor) and other.dim()):
                tensor = pair(tracer, tensor, other, "other")
        x = tracer.labels(tensor)
        tracer.structure.pin_wires(x.wire, not scale, sign=not sign)
        return tracer.make(x)

    return apply


_SCALED = "relu leaky_relu rrelu abs absolute prelu_kernel"
_SIGNED = "neg negative"
_ODD = "tanh softsign tanhshrink erf sin tan sinh asinh arcsinh atan arctan"
_OTHER = """
    gelu silu mish elu selu celu relu6 hardswish hardsigmoid sigmoid softplus logsigmoid exp log
    sqrt rsqrt square clamp clip clamp_min clamp_max cos erfc expm1 log1p reciprocal round floor
    ceil sign hardshrink softshrink threshold logit nan_to_num eq ne lt le gt ge logical_not
    isnan isfinite pow rpow remainder fmod masked_fill logical_and logical_or atan2 bool int long
"""
_add(_SCALED, _elementwise(True, False))
_add(_SIGNED, _elementwise(True, True))
_add(_ODD, _elementwise(False, True))
_add(_OTHER, _elementwise(False, False))
SPREAD = frozenset(" ".join([_SCALED, _SIGNED, _ODD, _OTHER]).split())
"""Functions of single numbers: each tensor they are given is followed."""


def _hardtanh(
    tracer: Tracer, tensor: Traced, min_val: float = -1.0, max_val: float = 1.0, **kwargs: object
) -> Traced:
    return _elementwise(False, min_val == -max_val)(tracer, tensor)


_add("hardtanh", _hardtanh)


def _prelu(tracer: Tracer, tensor: Traced, weight: torch.Tensor) -> Traced:
    labels = tracer.labels(weight)
    tracer.structure.pin_wires(labels.wire)
    if weight.numel() == 1:
        tracer.structure.pinned.append(labels.unit.reshape(-1).numpy())
    else:
        ones = (..., *[None] * (tensor.dim() - 2))
        tensor = pair(tracer, tensor, weight[ones], "mul")
    return _elementwise(True, False)(tracer, tensor)


_add("prelu", _prelu)


def _where(
    tracer: Tracer,
    condition: torch.Tensor,
    input: torch.Tensor | float,
    other: torch.Tensor | float,
) -> Traced:
    return pair(tracer, pair(tracer, condition, input, "other"), other, "other")


_add("where", _where)


def _binary(how: str, swapped: bool = False) -> Callable[..., Traced]:
    def apply(
        tracer: Tracer,
        left: torch.Tensor | float,
        right: torch.Tensor | float,
        *args: object,
        **kwargs: object,
    ) -> Traced:
        if swapped:
            left, right = right, left
        number = [v for v in (left, right) if not isinstance(v, torch.Tensor)]
        if number and (how == "mul" or (how == "div" and number[0] is right)):
            tensor = right if number[0] is left else left
            return tracer.make(tracer.labels(tensor), tensor.loose)
        return pair(tracer, left, right, how)

    return apply


_add("add sub iadd isub radd subtract", _binary("add"))
_add("rsub", _binary("add", True))
_add("mul multiply imul rmul", _binary("mul"))
_add("div divide true_divide truediv itruediv", _binary("div"))
_add("rdiv rtruediv", _binary("div", True))
_add("maximum minimum", _binary("extreme"))


def _reducing(how: str) -> Callable[..., Traced]:
    def apply(
        tracer: Tracer,
        tensor: Traced,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        **kwargs: object,
    ) -> Traced:
        return reduce(tracer, tensor, kwargs.get("axis", dim), _keepdim(keepdim, kwargs), how)

    return apply


def _keepdim(keepdim: bool, kwargs: dict[str, object]) -> bool:
    """Return whether reduced axes stay, by torch's word or by NumPy's."""
    return bool(kwargs.get("keepdims", keepdim))


_add("mean sum", _reducing("linear"))
_add("amax amin", _reducing("extreme"))
_add("logsumexp prod", _reducing("other"))


def _moments(
    tracer: Tracer,
    tensor: Traced,
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    **kwargs: object,
) -> Traced:
    dim = kwargs.get("axis", dim)
    dim = None if isinstance(dim, bool) else dim  # `unbiased` alone
    return reduce(tracer, tensor, dim, _keepdim(keepdim, kwargs), "other")


_add("var std", _moments)


def _extreme(
    tracer: Tracer,
    tensor: Traced,
    dim: torch.Tensor | int | None = None,
    keepdim: bool = False,
    **kwargs: object,
) -> Result:
    dim, keepdim = kwargs.get("axis", kwargs.get("other", dim)), _keepdim(keepdim, kwargs)
    if isinstance(dim, torch.Tensor):
        return pair(tracer, tensor, dim, "extreme")
    made = reduce(tracer, tensor, dim, keepdim, "extreme")
    return made if dim is None else torch.return_types.max((made, made))


_add("max min", _extreme)


def _softmax(tracer: Tracer, tensor: Traced, dim: int, *args: object, **kwargs: object) -> Traced:
    return layers.normalise(tracer, tensor, [dim], None, None)


_add("softmax log_softmax softmin", _softmax)
_add(
    "normalize",
    lambda tracer, x, p=2.0, dim=1, eps=1e-12, out=None: layers.normalise(
        tracer, x, [dim], None, None
    ),
)


def _spatial(function: Callable[..., torch.Tensor], sign: bool) -> Callable[..., Traced]:
    """Return the operation that treats each channel's places alike, as pooling does."""

    def apply(tracer: Tracer, tensor: Traced, *args: object, **kwargs: object) -> Traced:
        kwargs.pop("return_indices", None)
        if not sign:
            tracer.structure.pin_wires(tracer.labels(tensor).wire, scale=False)
        return channelwise(tracer, tensor, 1, on_shape(function, tensor, *args, **kwargs).shape)

    return apply


for _dims in (1, 2, 3):
    for _kind, _sign in (("avg_pool", True), ("max_pool", False)):
        for _prefix in ("", "adaptive_"):
            _name = f"{_prefix}{_kind}{_dims}d"
            _add(_name, _spatial(getattr(functional, _name), _sign))
    OPERATIONS[f"max_pool{_dims}d_with_indices"] = OPERATIONS[f"max_pool{_dims}d"]
    _add(f"conv{_dims}d", layers.convolution)
    _add(f"conv_transpose{_dims}d", layers.transposed_convolution)
_add("interpolate upsample", _spatial(functional.interpolate, True))


def _dropout(
    tracer: Tracer,
    tensor: Traced,
    p: float = 0.5,
    training: bool = True,
    *args: object,
    **kwargs: object,
) -> Traced:
    if training and p:
        tracer.refuse("it drops units even in evaluation; use nn.Dropout")
    return tensor


def _gated(tensor: Traced, dim: int) -> tuple[Traced, Traced]:
    kept, gate = tensor.chunk(2, dim)
    return kept, gate.sigmoid()


def _addmm(
    tracer: Tracer,
    added: torch.Tensor,
    left: torch.Tensor,
    right: torch.Tensor,
    beta: float = 1,
    alpha: float = 1,
) -> Traced:
    return beta * added + alpha * (left @ right)


def _embedding(
    tracer: Tracer, input: torch.Tensor, weight: Traced, *args: object, **kwargs: object
) -> Traced:
    if isinstance(input, Traced):
        tracer.refuse("what is looked up depends on the numbers; only constant places can be")
    return weight[input]


_add("dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout", _dropout)
_add("glu", lambda tracer, x, dim=-1: torch.mul(*_gated(x, dim)))
_add("embedding", _embedding)
_add("linear", layers.linear)
_add("addmm addbmm", _addmm)
_add("einsum", einsum)
_add("matmul bmm mm", product)
_add("rmatmul", lambda tracer, right, left: product(tracer, left, right))
_add("batch_norm", layers.batch_norm)
_add("layer_norm rms_norm", layers.layer_norm)
_add("group_norm", layers.group_norm)
_add("instance_norm", layers.instance_norm)
_add("local_response_norm", layers.local_response_norm)
_add("scaled_dot_product_attention", attention)
_add("multi_head_attention_forward", multi_head_attention)

FOLLOWED = Operations(
    OPERATIONS,
    PLAIN,
    control=CONTROL,
    untouched=UNTOUCHED,
    spread=SPREAD | frozenset(MOVEMENT) | {"einsum"},
)
