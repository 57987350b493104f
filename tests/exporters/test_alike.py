"""Safetensors files of one layout are, byte by byte, those that the library's own writer makes."""

import numpy as np
import pytest
from safetensors.numpy import load, save

from dwf.exporters.alike import Alike


def state(seed: int) -> dict[str, np.ndarray]:
    """Tensors that the library does not keep in their order: it sorts by width and name."""
    stream = np.random.default_rng(seed)
    return {
        "layers.1.weight": stream.standard_normal((3, 5), dtype=np.float32),
        "layers.0.bias": stream.standard_normal(3, dtype=np.float32),
        "norm.num_batches_tracked": np.array(7 + seed),
        'a "quoted" \\ näme': stream.standard_normal((2, 0), dtype=np.float32),
        "mask": stream.random(3) < 0.5,
    }


@pytest.mark.parametrize("said", ["", "x" * 5, '{"a": "\\u00fc ü \\" / \t \x01 \n", "row": 12}'])
def test_bytes_are_those_of_the_library(said):
    alike = Alike(state(0))
    for seed in range(3):
        content = alike.bytes_of(state(seed), {"dwf": said})
        assert content == save(state(seed), {"dwf": said})
        assert {name: a.tolist() for name, a in load(content).items()} == {
            name: a.tolist() for name, a in state(seed).items()
        }
