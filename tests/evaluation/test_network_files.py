"""Files of networks as samples of a report, against the same networks as a zoo."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import dwf
from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.errors import CorruptCheckpoint, CorruptShard, ShapeMismatch, TooFewNetworks
from dwf.evaluation.config import BatchNormConfig, EvaluateConfig
from dwf.evaluation.network_files import open_samples, title_of
from dwf.evaluation.stage import evaluate
from dwf.exporters.config import ExportConfig
from dwf.exporters.stage import export_networks

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def files(zoo, tmp_path):
    """Three test networks and a training network, as safetensors."""
    rows = (*zoo.rows("test", "last")[:3].tolist(), int(zoo.rows("train", "last")[4]))
    config = ExportConfig(zoo.name, rows=rows, to=str(tmp_path / "files"))
    return rows, export_networks(config, tmp_path, name="unused")


def test_files_have_one_title_wherever_it_is_asked_for(zoo, files, tmp_path):
    """A dot in a folder's name is no ending."""
    rows, folder = files
    dotted = folder.rename(tmp_path / "mine.v2")
    single = dotted / f"row-{rows[0]:07d}.safetensors"
    with open_samples((str(dotted), str(single)), zoo, root=tmp_path) as opened:
        assert [one.name for one in opened] == [title_of(dotted), title_of(single)]
        assert [one.name for one in opened] == ["mine.v2", f"row-{rows[0]:07d}"]


def test_a_file_is_scored_as_its_row_is(zoo, files, tmp_path):
    """A folder of four and a single file, in one report: accuracies are those of the zoo."""
    rows, folder = files
    single = folder / f"row-{rows[0]:07d}.safetensors"
    config = EvaluateConfig("z", (str(folder), str(single)), count=2, averages=(2,), noise=(0.1,))
    report = evaluate(config, tmp_path, name="r")
    several, one = report.of("samples")
    assert several.title == "files" and one.title == single.stem
    expected = zoo.columns["test_accuracy"][sorted(rows)]
    assert several.values("test_accuracy").tolist() == pytest.approx(expected.tolist())
    assert one.values("test_accuracy").tolist() == pytest.approx(
        [zoo.columns["test_accuracy"][rows[0]]]
    )
    place = sorted(rows).index(rows[3])
    assert several.values("distance")[place] == 0, "a training network's file is a copy"
    assert (np.delete(several.values("distance"), place) > 0).all()
    assert evaluate(config, tmp_path, name="r").headline == report.headline, "finished already"


def test_a_file_is_put_into_the_frame_of_an_aligned_zoo(zoo, files, tmp_path):
    """Units of a training network shuffled by hand: in the frame it is found to be a copy."""
    rows, folder = files
    aligned = align_zoo(AlignConfig(zoo.name), tmp_path, name="aligned")
    state = load_file(folder / f"row-{rows[3]:07d}.safetensors")
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    state["layers.0.weight"] = state["layers.0.weight"][order].contiguous()
    state["layers.0.bias"] = state["layers.0.bias"][order].contiguous()
    state["layers.1.weight"] = state["layers.1.weight"][:, order].contiguous()
    save_file(state, tmp_path / "shuffled.safetensors")
    sample = str(tmp_path / "shuffled.safetensors")
    config = EvaluateConfig("aligned", (sample,), count=2, averages=(2,), noise=(0.1,))
    (found,) = evaluate(config, tmp_path, name="r").of("samples")
    assert found.values("distance_ratio")[0] < 1e-3 and found.title == "shuffled"
    assert aligned.name == "aligned"


def test_running_statistics_come_with_a_file(batchnorm_zoo, write_batchnorm, tmp_path):
    """Networks with BatchNorm: judged as the same rows of a zoo of samples are, to the last bit."""
    rows = (0, 5)
    config = ExportConfig(batchnorm_zoo.name, rows=rows, to=str(tmp_path / "files"))
    folder = export_networks(config, tmp_path, name="unused")
    write_batchnorm("same", batchnorm_zoo.read(np.array(rows)), batchnorm="generated")
    samples, few = (str(folder), "same"), BatchNormConfig(images=200)
    config = EvaluateConfig(batchnorm_zoo.name, samples, count=2, averages=(2,), batchnorm=few)
    one, other = evaluate(config, tmp_path, name="r").of("samples")
    assert one.title == "files" and "own" in one.summary["batchnorm"]
    assert one.summary["batchnorm"] == other.summary["batchnorm"]
    assert one.networks["test_accuracy"] == other.networks["test_accuracy"]


# --- bad input -----------------------------------------------------------------------------------


def opened(samples, zoo, root):
    with open_samples(samples, zoo, root=root) as found:
        return [one.name for one in found]


def test_a_file_that_does_not_fit_is_refused_by_its_tensor(zoo, tmp_path):
    state = {name: tensor.clone() for name, tensor in zoo.network(0).state_dict().items()}
    for name, other, told in (
        ("wide", state | {"layers.1.weight": torch.zeros(10, 9)}, r"layers.1.weight has shape"),
        ("less", {k: v for k, v in state.items() if k != "layers.0.bias"}, "lacks layers.0.bias"),
        ("more", state | {"layers.2.bias": torch.zeros(3)}, "has layers.2.bias, which"),
    ):
        save_file(other, tmp_path / f"{name}.safetensors")
        with pytest.raises(ShapeMismatch, match=rf"{name}.safetensors: .*{told}"):
            opened([str(tmp_path / f"{name}.safetensors")], zoo, tmp_path)


def test_files_that_are_not_there_or_of_no_network(zoo, files, tmp_path):
    with pytest.raises(dwf.errors.ConfigError, match="no such file"):
        opened([str(tmp_path / "nowhere.safetensors")], zoo, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TooFewNetworks, match="empty holds no network"):
        opened([str(tmp_path / "empty")], zoo, tmp_path)
    with pytest.raises(dwf.errors.NotAZoo, match="is not a zoo"):
        opened(["nothing"], zoo, tmp_path)
    folder = str(files[1])
    with pytest.raises(dwf.errors.ConfigError, match="files is the name of two sets"):
        opened([folder, folder], zoo, tmp_path)
    state = {name: tensor * float("nan") for name, tensor in zoo.network(0).state_dict().items()}
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(CorruptShard, match=r"nan.safetensors holds weights that are not finite"):
        opened([str(tmp_path / "nan.safetensors")], zoo, tmp_path)


def tensors(zoo) -> dict[str, torch.Tensor]:
    return dict(zoo.network(0).state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: [state], "holds a list: expected name -> tensor"),
        (lambda state: {n: t.cfloat() for n, t in state.items()}, "weight is complex"),
        (lambda state: {n: t.int() for n, t in state.items()}, "torch.int32, expected floating"),
        (lambda state: {n: t.to("meta") for n, t in state.items()}, "no values"),
        (lambda state: {n: t.to_sparse() for n, t in state.items()}, "is sparse or quantised"),
        (lambda state: {n: torch.stack([t, t]) for n, t in state.items()}, "holds 2 networks in"),
    ],
)
def test_files_that_hold_no_network_are_refused_by_name(zoo, tmp_path, change, said):
    torch.save(change(tensors(zoo)), tmp_path / "odd.pt")
    with pytest.raises((ShapeMismatch, CorruptCheckpoint), match=rf"odd.pt.*{said}"):
        opened([str(tmp_path / "odd.pt")], zoo, tmp_path)


def test_folders_are_told_apart_by_their_whole_names(zoo, tmp_path):
    for name in ("v1.0", "v1.1"):
        (tmp_path / name).mkdir()
        torch.save(tensors(zoo), tmp_path / name / "one.pt")
    names = [str(tmp_path / name) for name in ("v1.0", "v1.1")]
    assert opened(names, zoo, tmp_path) == ["v1.0", "v1.1"]
