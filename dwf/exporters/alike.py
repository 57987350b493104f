"""Safetensors files of many networks of one layout, whose heads differ in their metadata alone."""

import json

import numpy as np
from safetensors.numpy import save

from dwf.plain import Json

_SIZE_BYTES = 8  # before the head stands its length, little-endian
_ALIGNMENT = 8  # a head is filled up with spaces to a multiple of this
_METADATA = "__metadata__"


class Alike:
    """The common parts of such files: which tensor lies where, as the library decides it.

    Args:
        state: tensors of one of the networks, by name; contiguous.
    """

    def __init__(self, state: dict[str, np.ndarray]):
        example = save(state)
        size = int.from_bytes(example[:_SIZE_BYTES], "little")
        head = json.loads(example[_SIZE_BYTES : _SIZE_BYTES + size])
        self._order = sorted(state, key=lambda name: head[name]["data_offsets"])
        self._tensors = _as_json(head)[1:]

    def bytes_of(self, state: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
        """Return the file of a network: the same bytes that the library makes of it.

        Args:
            state: its tensors, of the names, shapes and dtypes of the first network's.
            metadata: texts by key.
        """
        # Not the library's `save`, which describes every tensor anew: it takes three times as long.
        head = f'{{"{_METADATA}":{_as_json(metadata)},{self._tensors}'.encode()
        head += b" " * (-len(head) % _ALIGNMENT)
        size = len(head).to_bytes(_SIZE_BYTES, "little")
        return b"".join([size, head, *(state[name].data for name in self._order)])


def _as_json(told: dict[str, Json]) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
