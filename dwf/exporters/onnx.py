"""ONNX: a file for each network, its input a batch of any size, checked by onnxruntime.

The graph is traced once, unoptimised, so that its constants are the network's tensors by their own
names; each network's weights are then laid into it.

Shape suffixes: D numbers of one network, B inputs of a batch, K classes.
"""

import logging
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dwf.errors import ConfigError
from dwf.exporters.exporter import Member, OneByOne
from dwf.randomness import numpy_stream

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""Version of ONNX's operators that files ask for; older runtimes refuse them."""
INPUT, OUTPUT = "input", "logits"
TOLERANCE = 1e-5
"""Largest deviation of onnxruntime from torch, in the largest logit."""
_TRACED, _CHECKED = 2, 5  # another batch than the one traced, or a fixed size would not show


class OnnxExporter(OneByOne):
    """Writes `row-0000003.onnx`: `input` [batch, *shape] to `logits` [batch, K], float32.

    Raises:
        ConfigError: torch cannot make a graph of the network, or onnxruntime answers otherwise.
    """

    imports = ("onnx", "onnxruntime", "onnxscript")
    suffix = ".onnx"

    def save(self, member: Member, paths: Sequence[Path]) -> None:
        """Write a network's file, and hold it to what torch computes."""
        from onnx.numpy_helper import from_array

        for initializer in self._graph.graph.initializer:
            if initializer.name in member.state:
                initializer.CopyFrom(from_array(member.state[initializer.name], initializer.name))
        content = self._graph.SerializeToString(deterministic=True)
        self._check(content, member)
        paths[0].write_bytes(content)

    @cached_property
    def _graph(self) -> "onnx.ModelProto":
        """The graph of the architecture, without traces of the files that it was made of."""
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
            warnings.simplefilter("ignore")  # of torch's own parts
            try:
                made = torch.onnx.export(
                    self.network,
                    (self._inputs(_TRACED),),
                    dynamo=True,
                    opset_version=OPSET,
                    external_data=False,
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    optimize=False,
                    verbose=False,
                )
            except Exception as error:  # of the many kinds that a graph can fail with
                raise self._refused(str(error).strip().splitlines()[0]) from error
        graph = made.model_proto
        versions = {one.version for one in graph.opset_import if not one.domain}
        if versions != {OPSET}:  # torch takes another where it lacks the one asked for
            raise self._refused(f"its opset is {versions}, expected {OPSET}")
        return _without_traces(graph)

    def _refused(self, why: str) -> ConfigError:
        return ConfigError(
            f"{self.zoo.facts.network.named} cannot be exported to ONNX: {why}: take another "
            "--format, as safetensors"
        )

    def _inputs(self, batch: int) -> torch.Tensor:
        shape = (batch, *self.zoo.input_shape)
        drawn = numpy_stream(0, "onnx", batch).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(drawn)

    @torch.no_grad()
    def _check(self, content: bytes, member: Member) -> None:
        """Hold a file to the network that it was made of, on inputs that are drawn."""
        import onnxruntime

        inputs_B = self._inputs(_CHECKED)
        state = {name: torch.from_numpy(array) for name, array in member.state.items()}
        expected_BK = torch.func.functional_call(self.network, state, (inputs_B,)).numpy()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found_BK = session.run([OUTPUT], {INPUT: inputs_B.numpy()})[0]
        off = np.abs(found_BK - expected_BK).max()
        if not off <= TOLERANCE * np.abs(expected_BK).max() and not self.config.not_finite:
            raise self._refused(f"in row {member.row} its logits differ from torch's by {off:.2g}")


def _without_traces(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a model without notes on the source that it was traced from, and their paths."""
    model.doc_string = ""
    del model.metadata_props[:]
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


class _quiet:  # noqa: N801  reads as a word of `with`
    """Within the block loggers tell of errors alone."""

    def __init__(self, *names: str):
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._before = [one.level for one in self._loggers]
        for one in self._loggers:
            one.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for one, level in zip(self._loggers, self._before, strict=True):
            one.setLevel(level)
