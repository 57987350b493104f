"""What zoos say of themselves: told onward to the byte, and what is wrong in it is named."""

import dataclasses
import json
from pathlib import Path

import pytest

from dwf.align.config import AlignConfig
from dwf.align.stage import align_zoo
from dwf.codecs.config import FlatConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import NotAZoo
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import PythonConfig
from dwf.settings import build
from dwf.zoo.config import KeepSteps, ZooConfig
from dwf.zoo.facts import Facts, Method, Subject
from dwf.zoo.layout import Layout
from dwf.zoo.merge import merge_zoos
from dwf.zoo.provenance import Aligned, Merged, Sampled, Trained
from dwf.zoo.stage import train_shard, train_zoo
from dwf.zoo.store import create_zoo
from tests.zoos import facts_of

MADE = ("trained", "other", "steps", "merged", "aligned", "sampled")
TRAINED_KEYS = [
    *("format", "version", "num_shards", "network", "data", "count", "recipe", "vary", "split"),
    *("seed", "keep_epochs", "keep", "train_scores", "cohort", "method", "input_shape"),
    *("split_by", "provenance", "layout"),
]


@pytest.fixture(scope="module")
def zoos(tmp_path_factory) -> Path:
    """A folder with a zoo made by each command."""
    root = tmp_path_factory.mktemp("root")
    network = {"kind": "mlp", "widths": [4, 6, 3], "activation": "tanh"}
    settings = {"network": network, "data": {"kind": "iris"}, "count": 12}
    settings |= {"recipe": {"epochs": 1}, "vary": {"dropout": {"low": 0.0, "high": 0.5}}}
    settings["split"] = {"val": 0.25, "test": 0.0}

    def train(name, **changes):
        return train_zoo(build(ZooConfig, settings | changes, source=name), root, name=name)

    train("trained")
    train("other", seed=1, recipe={"epochs": 1, "weight_decay": 0.1})
    train("steps", count=1, keep={"kind": "steps", "rows": 10}, vary={})
    merge_zoos(root / "zoos/merged", [root / "zoos/trained", root / "zoos/other"])
    align_zoo(AlignConfig("merged", signs=True, num_pairs=0), root, name="aligned")
    generator = GeneratorConfig("aligned", codec=FlatConfig(), density=GaussianConfig())
    fit_generator(generator, root, name="g")
    sample_networks(SampleConfig("g", count=3), root, name="sampled")
    return root / "zoos"


@pytest.mark.parametrize("name", MADE)
def test_what_is_read_is_what_was_written(zoos, tmp_path, name):
    facts = Facts.read(zoos / name)
    create_zoo(tmp_path, facts)
    assert (tmp_path / "zoo.json").read_bytes() == (zoos / name / "zoo.json").read_bytes()
    assert Facts.read(tmp_path) == facts


@pytest.mark.parametrize("name", MADE)
def test_values_are_those_of_the_file(zoos, name):
    facts, told = Facts.read(zoos / name), json.loads((zoos / name / "zoo.json").read_text())
    assert list(facts.network.widths) == told["network"]["widths"] == [4, 6, 3]
    assert (facts.data.kind, facts.data.seed) == (told["data"]["kind"], told["data"]["seed"])
    assert (facts.seed, list(facts.input_shape)) == (told["seed"], told["input_shape"])
    assert facts.num_shards == told["num_shards"] == len(list((zoos / name).glob("shard-*")))
    assert facts.layout == Layout.of(facts.build_network())
    assert facts.load_data().shape == facts.input_shape


def test_each_command_says_what_it_does(zoos):
    trained, steps, merged, aligned, drawn = (
        Facts.read(zoos / name) for name in ("trained", "steps", "merged", "aligned", "sampled")
    )
    assert isinstance(trained.provenance, Trained) and isinstance(merged.provenance, Merged)
    assert isinstance(trained.method, Method) and trained.method.cohort == trained.cohort
    assert (trained.split_by, steps.split_by) == ("networks", "blocks of steps")
    assert steps.keep == KeepSteps(rows=10) and trained.keep is None
    assert merged.recipe is None and merged.cohort is None and merged.count == 24
    assert isinstance(aligned.aligned, Aligned) and aligned.aligned.signs
    assert aligned.aligned.before == merged.provenance and aligned.sampled is None
    assert isinstance(drawn.sampled, Sampled) and drawn.sampled.zoo == "aligned"
    assert (drawn.aligned, drawn.count, drawn.method, drawn.split_by) == (None,) * 4
    assert drawn.subject == aligned.subject


def test_keys_stand_in_the_order_of_their_command(zoos):
    told = {name: list(json.loads((zoos / name / "zoo.json").read_text())) for name in MADE}
    assert told["trained"] == told["steps"] == TRAINED_KEYS
    head, last = TRAINED_KEYS[:3], TRAINED_KEYS[-1:]
    alike = ["data", "input_shape", "keep", "keep_epochs", "method", "network", "split"]
    alike += ["split_by", "train_scores", "vary"]
    assert told["merged"] == head + alike + ["count", "seed", "provenance"] + last
    assert told["aligned"] == told["merged"]
    assert told["sampled"] == [*head, "network", "data", "input_shape", "seed", "provenance", *last]


def test_every_setting_of_a_zoo_is_said_or_of_the_machine():
    names = {field.name for field in dataclasses.fields(ZooConfig)}
    assert names - {"shard", "compute"} <= {field.name for field in dataclasses.fields(Facts)}


def test_what_samples_inherit_is_read_back_from_plain_data(zoos):
    for name in MADE:
        subject = Facts.read(zoos / name).subject
        plain = json.loads(json.dumps(subject.to_json()))
        assert build(Subject, plain, source="file") == subject


def rewritten(zoos, tmp_path, name="trained", **changes) -> Path:
    told = json.loads((zoos / name / "zoo.json").read_text()) | changes
    kept = {key: value for key, value in told.items() if value != "removed"}
    (tmp_path / "zoo.json").write_text(json.dumps(kept))
    return tmp_path


@pytest.mark.parametrize("key", ["network", "data", "input_shape", "seed", "num_shards", "layout"])
def test_a_missing_key_is_named_with_its_file(zoos, tmp_path, key):
    folder = rewritten(zoos, tmp_path, **{key: "removed"})
    with pytest.raises(NotAZoo, match=f"{folder}/zoo.json: {key} is missing.*make"):
        Facts.read(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arch": "mlp"}, "zoo.json: arch is nothing that a zoo says of itself"),
        ({"said": []}, "zoo.json: said is nothing that a zoo says"),
        ({"data": {"kind": "svhn"}}, "zoo.json: data.kind = 'svhn': allowed is one of mnist"),
        ({"network": {"kind": "mlp"}}, "zoo.json: network.widths is missing"),
        ({"recipe": {"epoch": 3}}, "zoo.json: recipe.epoch: no such setting"),
        ({"split_by": "rows"}, "zoo.json: split_by = 'rows': allowed is one of networks"),
        ({"seed": "zero"}, "zoo.json: seed = 'zero'"),
        ({"layout": [{"name": "w"}]}, "zoo.json: layout is not as this dwf writes it"),
        ({"provenance": {"found_by": "me"}}, "provenance has none of trained_by, merged_by"),
        ({"provenance": {"generator": "g"}}, "zoo.json: provenance.digest is missing"),
    ],
)
def test_a_key_or_value_that_is_not_allowed_is_named_with_its_file(zoos, tmp_path, changes, said):
    with pytest.raises(NotAZoo, match=said):
        Facts.read(rewritten(zoos, tmp_path, **changes))


def test_where_aligned_networks_came_from_is_read_as_far_as_it_goes(zoos, tmp_path):
    told = json.loads((zoos / "aligned" / "zoo.json").read_text())["provenance"]
    folder = rewritten(zoos, tmp_path, name="aligned", provenance=told | {"before": {"by": "hand"}})
    with pytest.raises(NotAZoo, match=r"zoo.json: provenance.before has none of trained_by"):
        Facts.read(folder)


def test_a_zoo_that_was_not_trained_is_not_trained_on(zoos, tmp_path):
    folder = rewritten(zoos, tmp_path, method="removed")
    (folder / "run").mkdir()
    config = (zoos / "trained/run/config.yaml").read_text()
    (folder / "run" / "config.yaml").write_text(config)
    with pytest.raises(NotAZoo, match=r"zoo.json: method is missing"):
        train_shard(folder, 0)


def test_arguments_of_a_users_network_are_told_onward_as_they_are():
    arguments = {"classes": 10, "widths": [3, 4], "options": {"bias": None, "rate": 0.5}}
    facts = facts_of(Layout(()), PythonConfig("package.module:factory", arguments))
    plain = json.loads(json.dumps(facts.to_json()))
    assert plain["network"]["arguments"] == arguments
    told = {key: value for key, value in plain.items() if key not in ("format", "version")}
    assert Facts.of(told, Path("zoo.json")).to_json() == plain
