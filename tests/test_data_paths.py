"""Own data whose prepared copy is gone are given to any stage that reads them by `--data-path`.

Every command is given twice where no data are: without the flag it is refused by name, with it what
it makes is there. No record of any of them has the path of the data.
"""

import dataclasses
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dwf import data_paths, preemption
from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.codecs.config import FlatConfig
from dwf.commands import COMMANDS
from dwf.datasets.config import ArraysConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, DataUnavailable
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import MLPConfig
from dwf.settings import to_dict
from dwf.zoo.config import RecipeConfig, SplitConfig, ZooConfig
from dwf.zoo.stage import train_zoo

ROOT = Path(__file__).parent.parent
DATA = ArraysConfig(name="mine.npz", validation=0.2)
RECIPE = RecipeConfig(epochs=1, batch_size=16)
ZOO = ZooConfig(
    MLPConfig((16, 4, 3)), DATA, 12, recipe=RECIPE, split=SplitConfig(val=0.2, test=0.2)
)
FINETUNE = {"data": to_dict(DATA), "recipe": {"epochs": 1, "batch_size": 16}, "epochs": [0, 1]}
FINETUNE |= {"arms": ["random", "originals"], "count": 2, "members": 2}
IMPORT = {"network": {"kind": "mlp", "widths": [16, 4, 3]}}
IMPORT |= {"data": {"dataset": to_dict(DATA), "split": "unknown"}}
FAMILY = {"shared": to_dict(ZOO), "zoos": {"a": {}, "b": {"network": {"widths": [16, 5, 3]}}}}
FILES = {"zoo": to_dict(ZOO), "family": FAMILY, "finetune": FINETUNE, "import": IMPORT}
FILES["head"] = {"generator": "g", "count": 2, "data": to_dict(DATA)}
FILES["generator"] = {
    "codec": {"kind": "flat"},
    "density": {
        "kind": "flow",
        "backbone": {"kind": "residual_mlp", "width": 8, "depth": 1},
        "training": {"steps": 2, "batch_size": 4, "validate_every": 1, "sample_every": 1},
        "solver": {"method": "euler", "steps": 2},
    },
}

SUBSAMPLE = "configs/sample/subsample.yaml"
MAKES = {  # what it makes: script and flags
    "zoos/again": "zoo --config {files}/zoo.yaml --workers 1",
    "zoos/all": "zoo --config {files}/family.yaml --workers 1",
    "zoos/in": "import --config {files}/import.yaml --source {files}/nets",
    "zoos/framed": "align --zoo z",
    "runs/judged": "generator --config {files}/generator.yaml --zoo z",
    "zoos/best": f"sample --config {SUBSAMPLE} --generator g --count 2",
    "zoos/head": "sample --config {files}/head.yaml",
    "reports/r": "evaluate --zoo z-aligned --samples s --noise 0.1 --averages 2 --count 4",
    "finetunes/f": "finetune --config {files}/finetune.yaml --zoo z --workers 1",
}
IN_PROCESSES = [
    pytest.param(name, marks=pytest.mark.slow) for name in MAKES if "--workers" in MAKES[name]
]
HERE = [name for name in MAKES if "--workers" not in MAKES[name]]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`zoos/z`, `zoos/z-aligned`, `runs/g`, `zoos/s`, settings files, and the data beside them."""
    root = tmp_path_factory.mktemp("own")
    stream = np.random.default_rng(0)
    images, labels = stream.integers(0, 256, (60, 4, 4), np.uint8), np.arange(60) % 3
    (root / "files" / "nets").mkdir(parents=True)
    np.savez(root / "files" / "mine.npz", x_train=images, y_train=labels)
    for name, said in FILES.items():
        (root / "files" / f"{name}.yaml").write_text(yaml.safe_dump(said))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DWF_DATA", str(root / "cache"))
        patched.setenv(data_paths.ENVIRONMENT, "")
        data_paths.give_data(f"mine.npz={root / 'files' / 'mine.npz'}")
        zoo = train_zoo(ZOO, root, name="z")
        train_zoo(dataclasses.replace(ZOO, seed=1), root, name="z2")
        align_zoo(AlignConfig("z", num_pairs=0), root, name="z-aligned")
        config = GeneratorConfig(zoo="z-aligned", codec=FlatConfig(), density=GaussianConfig())
        fit_generator(config, root, name="g")
        sample_networks(SampleConfig("g", count=4), root, name="s")
    for row in range(3):
        torch.save(zoo.network(row).state_dict(), root / "files" / "nets" / f"net_{row}.pt")
    shutil.rmtree(root / "cache")
    return root


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """No data are prepared, and none were given; signals are handled as before afterwards."""
    handlers = {number: signal.getsignal(number) for number in preemption.SIGNALS}
    monkeypatch.setenv("DWF_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv(data_paths.ENVIRONMENT, "")
    yield
    preemption.forget()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def hold_no_path(folder: Path, root: Path) -> None:
    """No record of a run has the place of its data; what was typed has."""
    for file in (file for file in folder.rglob("*") if file.is_file()):
        typed = file.name in ("command.txt", "lock")
        assert typed or str(root / "files" / "mine.npz").encode() not in file.read_bytes(), file


@pytest.mark.parametrize("product", [*HERE, *IN_PROCESSES])
def test_a_stage_takes_data_that_are_no_longer_prepared(product, made, no_data, monkeypatch):
    script, *words = MAKES[product].format(files=made / "files").split()
    words += ["--root", str(made), "--name", Path(product).name]
    main = COMMANDS[script].run
    with pytest.raises(DataUnavailable, match=r"give its file by --data-path mine\.npz=FILE"):
        main(words)
    other = made / "files" / "zoo.yaml"
    if script not in ("zoo", "import", "finetune") and "head" not in product:
        with pytest.raises(DataUnavailable, match=r"has sha256 .* expected"):
            main([*words, "--data-path", f"mine.npz={other}"])
    main([*words, "--data-path", f"mine.npz={made / 'files' / 'mine.npz'}"])
    assert (made / product).is_dir()
    for folder in made.glob(f"{product}*"):
        hold_no_path(folder, made)


def test_the_loss_of_a_codec_is_measured_on_such_data(made, no_data, capsys):
    main, words = COMMANDS["reconstruction"].run, [str(made / "runs" / "g")]
    with pytest.raises(DataUnavailable, match="--data-path"):
        main(words)
    main([*words, "--data-path", f"mine.npz={made / 'files' / 'mine.npz'}"])
    assert "g-reconstruction/report.html" in capsys.readouterr().out
    hold_no_path(made / "reports" / "g-reconstruction", made)


def test_the_groups_of_a_zoo_to_be_are_found_on_such_data(made, no_data, capsys):
    main = COMMANDS["symmetry"].run
    words = [str(made / "files" / "zoo.yaml")]
    with pytest.raises(ConfigError, match=r"--data-path mine\.npz=FILE"):
        main(words)
    main([*words, "--data-path", f"mine.npz={made / 'files' / 'mine.npz'}"])
    assert "| zoo | 83 |" in capsys.readouterr().out
    main([str(made / "zoos" / "z")])  # a zoo says the shape itself


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["embed", "{0}/runs/g", "{0}/zoos/z", "--out", "{0}/e.npz"], "12 x"),
        (["info", "{0}/zoos/z"], "mine.npz"),
        (["verify", "{0}/zoos/z", "{0}/zoos/s"], "shards are whole"),
        (["statistics", "{0}/zoos/z"], "mean norm"),
        (["merge", "{0}/zoos/both", "{0}/zoos/z", "{0}/zoos/z2"], "24 rows"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_other_commands_need_no_data(words, said, made, no_data, capsys):
    COMMANDS[words[0]].run([word.format(made) for word in words[1:]])
    assert said in capsys.readouterr().out


def test_a_wrong_flag_is_told(tmp_path, no_data):
    for told, said in (("mine.npz", "expected NAME=FILE"), ("a=/nowhere", "/nowhere is not there")):
        with pytest.raises(ConfigError, match=said):
            data_paths.give_data(told)
