"""Settings by name, some given anew: held to what the files say, read as YAML alone."""

from pathlib import Path

import pytest
import yaml

import dwf
from dwf.errors import ConfigError
from dwf.loading import CLASSES
from dwf.networks.config import CNNConfig, MLPConfig
from dwf.settings import build, to_dict
from dwf.shipped import CONFIGS
from dwf.zoo.config import RecipeConfig, ZooConfig
from dwf.zoo.family_config import FamilyConfig

REQUIRED = {"zoo": "any", "generator": "any", "source": "any"}
PRESETS = sorted(p.relative_to(CONFIGS).with_suffix("") for p in CONFIGS.rglob("*.yaml"))


def test_every_folder_of_presets_has_a_class():
    folders = {folder.name for folder in CONFIGS.iterdir() if list(folder.rglob("*.yaml"))}
    assert folders == set(CLASSES)


@pytest.mark.parametrize("name", PRESETS, ids=str)
def test_every_preset_is_found_by_its_name(name):
    needs = {"align": "zoo", "evaluate": "zoo", "export": "zoo", "finetune": "zoo"}
    needs |= {"measure": "zoo", "sample": "generator", "import": "source"}
    word, text = needs.get(name.parts[0]), (CONFIGS / name).with_suffix(".yaml").read_text()
    said = yaml.safe_load(text) or {}
    more = {word: REQUIRED[word]} if word and word not in said else {}
    config = dwf.load_settings(name.as_posix(), **more)
    for key, value in said.items():
        if isinstance(value, (str, int)) and key != "extends":
            found = to_dict(config)[key]
            assert found == value or str(found) == str(value)


def test_settings_are_given_anew():
    asked = {"recipe.epochs": 5, "vary": {"initialisation": ["he"]}}
    config = dwf.load_settings("zoo/digits_4096", count=20, **asked)
    assert isinstance(config, ZooConfig)
    plain = dwf.load_settings("digits_4096")
    assert (config.count, config.recipe.epochs, config.vary.initialisation) == (20, 5, ("he",))
    assert (plain.count, config.recipe.batch_size) == (4608, plain.recipe.batch_size)
    assert config.network == plain.network


def test_a_block_may_be_an_object_or_of_another_kind():
    network = CNNConfig(classes=3)
    assert dwf.load_settings("zoo/iris_mlp", network=network).network == network
    recipe = dwf.load_settings("zoo/iris_mlp", recipe=RecipeConfig(epochs=2)).recipe
    assert recipe == RecipeConfig(epochs=2)
    other = {"network.classes": 3, "network.kind": "cnn"}
    assert dwf.load_settings("zoo/iris_mlp", **other).network == network
    assert dwf.load_settings("zoo/iris_mlp", **{"network.widths": (4, 8, 3)}).network == (
        MLPConfig(widths=(4, 8, 3))
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"recipe.epoch": 5}, "recipe.epoch: no such setting in RecipeConfig; did you .*'epochs'"),
        ({"cont": 5}, "cont: no such setting in ZooConfig; did you mean 'count'"),
        ({"count": "20"}, "count = '20': expected int, found str"),
        ({"count": 0}, "count = 0: allowed is at least 1"),
        ({"network.kind": "mpl"}, "network.kind = 'mpl': allowed is one of .*did you mean 'mlp'"),
        ({"keep_epochs": (101,)}, "keep_epochs = .101.: the recipe ends at 100"),
        ({"count.more": 3}, "count = {'more': 3}: expected int"),
    ],
)
def test_what_is_given_is_held_to_the_same_checks(asked, said):
    with pytest.raises(ConfigError, match=rf"iris_mlp.yaml with {next(iter(asked))} .*{said}"):
        dwf.load_settings("zoo/iris_mlp", **asked)


def test_required_settings_are_given_by_name():
    assert dwf.load_settings("sample/few", generator="x").generator == "x"
    with pytest.raises(ConfigError, match=r"few.yaml: generator is missing"):
        dwf.load_settings("sample/few")


def test_a_bare_name_that_is_of_several_presets_is_refused():
    with pytest.raises(ConfigError, match=r"give generator/digits_neurons or pipeline/digits_neu"):
        dwf.load_settings("digits_neurons")
    assert dwf.load_settings("digits_neurons", "generator").codec.kind == "neurons"


def test_a_family_of_zoos_is_told_by_its_file():
    assert isinstance(dwf.load_settings("zoo/families/mlps_digits"), FamilyConfig)


@pytest.mark.parametrize("word", ["digits_4906", "zoo/digits_4906", "generator/digits_4096"])
def test_near_misses_are_listed(word):
    with pytest.raises(ConfigError, match=r"no such preset; did you mean .*zoo/digits_4096"):
        dwf.load_settings(word)


def test_a_file_is_read_as_its_folder_or_its_reader_says(tmp_path, monkeypatch):
    text = (CONFIGS / "zoo" / "iris_mlp.yaml").read_text()
    (tmp_path / "zoo").mkdir()
    own, other = tmp_path / "zoo" / "own.yaml", tmp_path / "other.yaml"
    own.write_text(text)
    other.write_text(text)
    preset = dwf.load_settings("zoo/iris_mlp")
    assert dwf.load_settings(own) == dwf.load_settings(str(own)) == preset
    assert dwf.load_settings(other, "zoo") == preset
    monkeypatch.setenv("HOME", str(tmp_path))
    assert dwf.load_settings("~/other.yaml", "zoo") == preset
    with pytest.raises(ConfigError, match=r"which stage are these settings of\? Give it, one of a"):
        dwf.load_settings(other)
    with pytest.raises(ConfigError, match=r"stage = 'zoos': .*other.yaml: which stage"):
        dwf.load_settings(other, "zoos")
    with pytest.raises(ConfigError, match=r"owm.yaml: no such file; did you mean .*own.yaml"):
        dwf.load_settings(tmp_path / "zoo" / "owm.yaml")


def test_settings_equal_those_built_from_the_file():
    data = yaml.safe_load((CONFIGS / "zoo" / "wine_mlp.yaml").read_text())
    assert dwf.load_settings(Path("wine_mlp")) == build(ZooConfig, data, source="wine")
