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

from dwf.codecs.codec import Codec
from dwf.codecs.moments import Sources
from dwf.errors import ConfigError
from dwf.networks.functional import run_networks
from dwf.randomness import numpy_stream, torch_stream
from dwf.zoo.store import Zoo

# Of each zoo: networks, and images for each of them. A token of 200 numbers needs a few thousand.
_NETWORKS, _IMAGES = 128, 32


def measure_sensitivity(codec: Codec, train: Sources, seed: int) -> list[torch.Tensor]:
    """Return the metric of each group of a code's tokens, float32, each [C, C].

    Scaled so that errors of independent numbers of equal size count as much as without it.

    Args:
        codec: makes the codes, which are sequences.
        train: the training networks.
        seed: of the choice of networks and images, and of the signs.

    Raises:
        ConfigError: codes are vectors, or the way from them to weights has no derivative; a zoo
            does not say what data its networks are for; or no number has an influence.
    """
    groups, totals = None, []
    for zoo, rows in train:
        for gradient_NK in _gradients(codec, zoo, rows, seed):
            groups = groups or _groups_of(codec, zoo)
            totals = totals or [torch.zeros(size, size).double() for _, size in groups]
            parts = gradient_NK.double().split([num * size for num, size in groups], 1)
            for total, part, (_, size) in zip(totals, parts, groups, strict=True):
                tokens = part.reshape(-1, size)
                total += tokens.T @ tokens
    # How many networks and images there were is a factor of all, which the scaling takes out.
    roots = [_root(total / num) for total, (num, _) in zip(totals, groups or (), strict=True)]
    trace = sum(num * root.trace() for root, (num, _) in zip(roots, groups or (), strict=True))
    if not trace:
        raise ConfigError(
            f"density.behaviour: nothing that the codes of {train[0][0].path} cover changes what "
            "its networks answer to their training images: set it to 0"
        )
    size = sum(num * size for num, size in groups)
    return [(root * (size / trace)).float() for root in roots]


def _groups_of(codec: Codec, zoo: Zoo) -> tuple[tuple[int, int], ...]:
    groups = codec.encode(torch.empty(0, zoo.layout.size), zoo.layout).groups
    if groups is None:
        raise ConfigError(
            f"density.behaviour measures tokens, and codec.kind = {codec.config.kind!r} makes "
            "vectors: choose the codec neurons, or set it to 0"
        )
    return groups


def _gradients(codec: Codec, zoo: Zoo, rows: np.ndarray, seed: int) -> Iterator[torch.Tensor]:
    """Yield gradient_NK of random combinations of logits, each network's for an image of its own.

    What the codec does not cover, as running statistics, is each network's own.
    """
    if not zoo.facts.get("data"):
        raise ConfigError(
            f"density.behaviour: {zoo.path} does not say what data its networks are for: set it "
            "to 0, or learn from a zoo that does"
        )
    order = numpy_stream(seed, "sensitivity", zoo.layout.digest).permutation(rows)
    weights_ND = torch.from_numpy(zoo.read(np.sort(order[:_NETWORKS])))
    codes = codec.encode(weights_ND, zoo.layout)
    network, data = zoo.build_network(), zoo.load_data()
    generator = torch_stream(seed, "sensitivity", zoo.layout.digest)
    for _ in range(_IMAGES):
        chosen_N = torch.randint(len(data.train), (len(codes),), generator=generator)
        inputs = data.prepare(data.train.batch(chosen_N)[0]).unsqueeze(1)
        values = codes.values.clone().requires_grad_()
        decoded_ND = codec.decode(replace(codes, values=values), zoo.layout)
        if not decoded_ND.requires_grad:
            raise ConfigError(
                f"density.behaviour: codec.kind = {codec.config.kind!r} has no derivative: choose "
                "the codec neurons, or set it to 0"
            )
        exact_ND = weights_ND + (decoded_ND - decoded_ND.detach())
        state = zoo.layout.unflatten(exact_ND)
        logits = run_networks(network, state, inputs, own_inputs=True)
        signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1
        gradient = torch.autograd.grad((logits * signs).sum(), values)[0]
        yield replace(codes, values=gradient).flatten()


def _root(total_CC: torch.Tensor) -> torch.Tensor:
    values_C, vectors_CC = torch.linalg.eigh(total_CC)
    return (vectors_CC * values_C.clamp(min=0).sqrt()) @ vectors_CC.T
