"""Networks that nobody can run: aligned by a given specification, learnt, drawn, never scored.

The alignment is held to a known shuffle of the units, undone by hand.
"""

import h5py
import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.align.symmetry import zoo_symmetry
from dwf.codecs.config import FlatConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.exporters.config import ExportConfig
from dwf.exporters.stage import export_networks
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.importers.config import ImportConfig, ImportedData
from dwf.importers.stage import import_zoo
from dwf.networks.config import MLPConfig, UnknownConfig
from tests.importers.written import Named

SPECIFICATION = """
fc1.weight: [hidden, null]
fc1.bias: [hidden]
fc2.weight: [null, hidden]
"""


@pytest.fixture
def source(tmp_path):
    """One network, its units in twelve orders, and a little noise."""
    (tmp_path / "source").mkdir()
    base, stream = Named(0).state_dict(), torch.Generator().manual_seed(0)
    for i in range(12):
        order = torch.arange(16) if i == 0 else torch.randperm(16, generator=stream)
        state = {"fc1.weight": base["fc1.weight"][order], "fc1.bias": base["fc1.bias"][order]}
        state |= {"fc2.weight": base["fc2.weight"][:, order], "fc2.bias": base["fc2.bias"]}
        noisy = {n: t + 1e-4 * torch.randn(t.shape, generator=stream) for n, t in state.items()}
        torch.save(noisy | {"steps": torch.tensor(3)}, tmp_path / "source" / f"net_{i}.pt")
    (tmp_path / "groups.yaml").write_text(SPECIFICATION)
    return tmp_path / "source"


def settings(source, **more) -> ImportConfig:
    usual = {"network": UnknownConfig(), "data": ImportedData(split="unknown")}
    usual |= {"permutations": str(source.parent / "groups.yaml")} | more
    return ImportConfig(str(source), **usual)


def test_the_whole_way_but_for_scores(source, tmp_path):
    zoo = import_zoo(settings(source), tmp_path, name="zoo")
    assert [e.role for e in zoo.layout.entries] == ["weight", "bias", "weight", "bias"]
    aligned = align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")
    base_D = torch.cat([t.flatten() for t in Named(0).state_dict().values()]).numpy()
    spread = np.abs(aligned.read() - base_D).max()
    assert spread < 1e-3 < np.abs(zoo.read() - base_D).max()
    config = GeneratorConfig(zoo="aligned", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(config, tmp_path, name="made")
    samples = sample_networks(SampleConfig(generator="made", count=3), tmp_path, name="samples")
    assert len(samples) == 3 and samples.facts.network.kind == "none"
    assert np.abs(samples.read() - base_D).max() < 0.1
    with pytest.raises(ConfigError, match="nobody can score"):
        evaluate(EvaluateConfig("aligned", samples=("samples",)), tmp_path, name="report")
    assert not (tmp_path / "reports").exists()


def test_groups_are_those_of_the_trace(source, tmp_path):
    """Against what is traced from the network itself."""
    given = import_zoo(settings(source), tmp_path, name="zoo")
    more = {"network": MLPConfig((64, 16, 10)), "permutations": None, "score": ()}
    from dwf.datasets.config import DataConfig

    data = ImportedData(DataConfig("digits"), split="unknown")
    known = import_zoo(settings(source, data=data, **more), tmp_path, name="known")
    (one,), (other,) = zoo_symmetry(given), zoo_symmetry(known)
    names = {"fc1.weight": "layers.0.weight", "fc1.bias": "layers.0.bias"}
    names |= {"fc2.weight": "layers.1.weight"}
    assert {(names[m.name], m.axis) for m in one.members} == {
        (m.name, m.axis) for m in other.members
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fc9.weight: [a, null]", "fc9.weight is no tensor"),
        ("fc1.weight: [a]", "a list of 2 groups or nulls"),
        ("{fc1.weight: [a, null], fc2.weight: [a, null]}", "16 units in .* and 10 in"),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(source, tmp_path, text, said):
    (tmp_path / "groups.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        import_zoo(settings(source), tmp_path, name="zoo")


def test_without_a_specification_nothing_is_reordered(source, tmp_path):
    import_zoo(settings(source, permutations=None), tmp_path, name="zoo")
    with pytest.raises(ConfigError, match="--permutations FILE"):
        align_zoo(AlignConfig("zoo"), tmp_path, name="aligned")


def test_a_specification_beside_a_network_is_refused(source):
    with pytest.raises(ValueError, match="its groups are traced"):
        settings(source, network=None)


def test_they_are_published_as_an_archive_without_data(source, tmp_path):
    import_zoo(settings(source), tmp_path, name="zoo")
    config = ExportConfig("zoo", "archive", licence="MIT", to=str(tmp_path / "out"))
    with h5py.File(export_networks(config, tmp_path, name="out") / "zoo.h5") as file:
        assert "of kind `none` on data that nobody told of" in file["about/readme"][()].decode()
