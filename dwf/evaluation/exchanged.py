"""Null arms of codes: networks put together of tokens of several, with nothing learnt.

    first layer of another      a network's tokens, those of the first layer from another network
    first layer's units of others   the same, each unit of the first layer from a network of its own
    every unit of another       each hidden unit of every layer from a network of its own
    mean units                  all units of a layer the mean one

In codes of residual networks a set of units stands for a layer: the first is the stream that the
stem begins, with what the blocks add to it.

How far they lie below the networks is what a generator has to learn of how tokens go together.

Shape suffixes: N networks, T tokens.
"""

from dataclasses import replace

import numpy as np
import torch

from dwf.codecs.codes import Codes
from dwf.randomness import numpy_stream


def exchanged(codes: Codes, *, seed: int) -> dict[str, Codes]:
    """Return each arm's codes, as many as there are codes.

    Args:
        codes: sequences, at least two; the last layer's token is the output's.
        seed: of who gives what to whom.
    """
    layer_T = codes.shape.positions[:, 1]
    first, hidden = layer_T == 0, layer_T < layer_T.max()
    shift = (torch.arange(len(codes)) + 1) % len(codes)
    of_another = codes.values.clone()
    of_another[:, first] = codes.values[shift][:, first]
    mean = codes.values.clone()
    for layer in layer_T.unique():
        mine = layer_T == layer
        mean[:, mine] = codes.values[:, mine].mean((0, 1))
    arms = {
        "first layer of another": of_another,
        "first layer's units of others": _of_others(codes, first, seed),
        "every unit of another": _of_others(codes, hidden, seed),
        "mean units": mean,
    }
    return {title: replace(codes, values=values) for title, values in arms.items()}


def _of_others(codes: Codes, chosen_T: torch.Tensor, seed: int) -> torch.Tensor:
    """Return values of codes in which each chosen token is of a network of its own."""
    values = codes.values.clone()
    for token in np.flatnonzero(chosen_T.numpy()).tolist():
        order_N = numpy_stream(seed, "exchanged", token).permutation(len(codes))
        values[:, token] = codes.values[torch.from_numpy(order_N), token]
    return values
