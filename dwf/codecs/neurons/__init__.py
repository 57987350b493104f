"""A token for each hidden unit: its incoming weights, bias and outgoing weights."""

from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.codecs.neurons.layers import NeuronLayer, own_tensors, read_layers

__all__ = ["NeuronLayer", "NeuronsCodec", "own_tensors", "read_layers"]
