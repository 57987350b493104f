"""How strongly each number of a code moves what a network answers: a metric for a flow's errors.

A flow that counts all numbers alike spends itself on those that do nothing: weights of pixels that
hardly vary, directions that cancel. In the metric of each layer's tokens

    G = E[g g^T],   g = d (r . logits) / d token,   r of independent random signs,

mean over training networks, training images and the layer's tokens, an error e of a token counts
e^T G e: to first order the squared change of the logits (the Gauss-Newton matrix of squared error;
Martens, arXiv 1412.1193, section 8). What is returned is its square root, halfway to counting
numbers alike: measured, samples are more accurate by it than by G itself.

Shape suffixes: N networks, D numbers of a network, K numbers of a code, C numbers of a token.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes, tokens_of
from dwf.datasets.dataset import Dataset
from dwf.errors import ConfigError
from dwf.networks.functional import run_networks
from dwf.randomness import numpy_stream, torch_stream
from dwf.zoo.layout import Layout
from dwf.zoo.moments import Sources
from dwf.zoo.store import Zoo

# Of each zoo: networks, and images for each of them. A token of 200 numbers needs a few thousand.
_NETWORKS, _IMAGES = 128, 32
# Bytes of the networks that are worked on at once: 128 of half a million weights, 5 ResNet-18.
_BLOCK_BYTES = 2**28


def measure_sensitivity(codec: Codec, train: Sources, *, seed: int) -> list[torch.Tensor]:
    """Return the metric of each section of a code's tokens, float32, each [C, C].

    Scaled so that errors of independent numbers of equal size count as much as without it.

    Args:
        codec: makes the codes, which are sequences.
        train: the training networks.
        seed: of the choice of networks and images, and of the signs.

    Raises:
        ConfigError: codes are vectors, or the way from them to weights has no derivative; or no
            number has an influence.
    """
    sections = codec.shape.sections
    if sections is None:
        raise ConfigError(
            f"density.behaviour measures tokens, and codec.kind = {codec.config.kind!r} makes "
            "vectors: choose the codec neurons, or set it to 0"
        )
    if not codec.config.has_derivative:
        raise ConfigError(
            f"density.behaviour: codec.kind = {codec.config.kind!r} has no derivative: choose "
            "the codec neurons, or set it to 0"
        )
    totals, counts = ([torch.zeros(size, size).double() for _, size in sections] for _ in range(2))
    for zoo, rows in (source for source in train if len(source[1])):
        num = 0
        for gradients in _gradients(codec, zoo, rows, seed):
            _add_products(totals, gradients.flatten(), sections)
            num += len(gradients)
        present_1K = torch.ones(1, codec.shape.size)
        if gradients.present_NK is not None:  # all of a zoo are of one architecture
            present_1K = gradients.take(slice(1)).present_NK
        _add_products(counts, present_1K, sections, times=num)
    # Mean over the tokens that have both numbers: narrower networks lack some.
    pairs = zip(totals, counts, strict=True)
    roots = [_root(total / count.clamp(min=1)) for total, count in pairs]
    weights = [count.diagonal() for count in counts]
    pairs = zip(weights, roots, strict=True)
    trace = sum(weight_C @ root.diagonal() for weight_C, root in pairs)
    if not trace:
        raise ConfigError(
            f"density.behaviour: nothing that the codes of {train[0][0].path} cover changes what "
            "its networks answer to their training images: set it to 0"
        )
    scale = sum(weight_C.sum() for weight_C in weights) / trace
    return [(root * scale).float() for root in roots]


def _gradients(codec: Codec, zoo: Zoo, rows: np.ndarray, seed: int) -> Iterator[Codes]:
    """Yield gradients of random combinations of logits, as codes; each network has its own image.

    The networks are those that codes stand for, in their scale. What the codec does not cover, and
    running statistics, are each network's own.
    """
    order = numpy_stream(seed, "sensitivity", zoo.layout.digest).permutation(rows)
    network, data = zoo.build_network(), zoo.load_data()
    generator = torch_stream(seed, "sensitivity", zoo.layout.digest)
    for _, weights in zoo.stream(np.sort(order[:_NETWORKS]), max_bytes=_BLOCK_BYTES):
        yield from _gradients_of(
            codec,
            torch.from_numpy(weights),
            layout=zoo.layout,
            network=network,
            data=data,
            generator=generator,
        )


def _gradients_of(
    codec: Codec,
    weights_ND: torch.Tensor,
    *,
    layout: Layout,
    network: nn.Module,
    data: Dataset,
    generator: torch.Generator,
) -> Iterator[Codes]:
    """Yield those of some networks, for one image of each after the other."""
    codes, spans = codec.encode(weights_ND, layout), codec.spans_of(layout)
    own = layout.unflatten(weights_ND)
    buffers = {each.name: own[each.name] for each in layout.entries if not each.is_learnt}
    for _ in range(_IMAGES):
        chosen_N = torch.randint(len(data.train), (len(codes),), generator=generator)
        inputs = data.prepare(data.train.batch(chosen_N)[0]).unsqueeze(1)
        values = codes.values.clone().requires_grad_()
        decoded_ND = codec.decode(replace(codes, values=values), layout)
        whole_ND = weights_ND.clone()
        for start, stop in spans:
            whole_ND[:, start:stop] = decoded_ND[:, start:stop]
        state = layout.unflatten(whole_ND) | buffers
        logits = run_networks(network, state, inputs=inputs, own_inputs=True)
        signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1
        gradient = torch.autograd.grad((logits * signs).sum(), values)[0]
        yield replace(codes, values=gradient)


def _add_products(
    sums: list[torch.Tensor],
    numbers_NK: torch.Tensor,
    sections: tuple[tuple[int, int], ...],
    times: int = 1,
) -> None:
    """Add to each section's sum, [C, C], the outer products of its tokens with themselves."""
    for total_CC, layer_NUC in zip(sums, tokens_of(numbers_NK.double(), sections), strict=True):
        tokens = layer_NUC.flatten(0, 1)
        total_CC += times * (tokens.T @ tokens)


def _root(total_CC: torch.Tensor) -> torch.Tensor:
    values_C, vectors_CC = torch.linalg.eigh(total_CC)
    return (vectors_CC * values_C.clamp(min=0).sqrt()) @ vectors_CC.T
