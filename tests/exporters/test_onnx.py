"""ONNX files: onnxruntime's logits against those of the rows, at batches of other sizes."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dwf.errors import ConfigError
from dwf.networks.config import CNNConfig, PythonConfig
from dwf.networks.functional import run_networks
from dwf.trust import trust_code

CONFIG = CNNConfig((4, 6), (1, 8, 8), norm="batch", paddings=1, pools=2, head="average")


def logits(file, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]


def test_onnxruntime_answers_as_torch_does(zoo_of, export, tmp_path):
    zoo = zoo_of(CONFIG, count=3)
    folder = export(zoo, "onnx", rows=(0, 2))
    for row in (0, 2):
        state = zoo.layout.unflatten(torch.from_numpy(zoo.read(np.array([row]))))
        for batch in (1, 7):
            inputs = torch.randn(batch, 1, 8, 8)
            with torch.no_grad():
                expected = run_networks(zoo.build_network(), state, inputs=inputs)[0].numpy()
            found = logits(folder / f"row-{row:07d}.onnx", inputs.numpy())
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    file = folder / "row-0000002.onnx"
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 20)]
    names = {one.name for one in model.graph.initializer}
    assert names == set(zoo.layout.by_name), "the tensors have the network's own names"
    assert not {f.name for f in folder.iterdir()} - {
        "export.json",
        "row-0000000.onnx",
        "row-0000002.onnx",
    }
    text = file.read_bytes()
    assert b".py" not in text and b"packages" not in text, "traces of the source and its folders"
    again = export(zoo, "onnx", "again", rows=(2,)) / "row-0000002.onnx"
    assert again.read_bytes() == text, "one graph for several networks, or for each, is the same"


NO_GRAPH = """
import torch

class Choosy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)

    def forward(self, inputs):
        found = self.layer(inputs.flatten(1))
        return found if found.sum().item() > 0 else -found
"""


def test_a_network_without_a_graph_is_named(zoo_of, export, tmp_path, monkeypatch):
    (tmp_path / "choosy.py").write_text(NO_GRAPH)
    monkeypatch.syspath_prepend(tmp_path)
    trust_code("choosy:Choosy")
    zoo = zoo_of(PythonConfig("choosy:Choosy"), count=1)
    with pytest.raises(ConfigError, match=r"network.target = 'choosy:Choosy' cannot be exported"):
        export(zoo, "onnx")
    sys.modules.pop("choosy")
