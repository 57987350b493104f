"""Windows of token sequences: cut from shards, permuted, loaded, coded one by one."""

from dwf.codecs.windows.halo import through_windows
from dwf.codecs.windows.loader import NamedTensors, WindowLoader, tensors_of, to_device
from dwf.codecs.windows.sampler import View, WindowBatch, WindowSampler

__all__ = [
    "NamedTensors",
    "View",
    "WindowBatch",
    "WindowLoader",
    "WindowSampler",
    "tensors_of",
    "through_windows",
    "to_device",
]
