"""The non-linearities a configuration can name."""

import torch
from torch.nn import functional

ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "leaky_relu": functional.leaky_relu,
}
"""Activation of `dwf.networks.config` -> function of a tensor."""
