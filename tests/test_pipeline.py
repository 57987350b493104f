"""Which commands a pipeline gives, whichever of its stages are absent; by hand."""

import pytest

from dwf.errors import ConfigError
from dwf.pipeline import STAGES, Command, PipelineConfig, commands, links
from dwf.settings import build

WHOLE = {
    "zoo": "z.yaml",
    "align": "a.yaml",
    "generators": ["way.yaml", "g/flat.yaml"],
    "sample": "s.yaml",
    "evaluate": "e.yaml",
    "measure": "m.yaml",
    "finetune": "f.yaml",
}


def flags_of(*absent: str, **changed) -> list[str]:
    """The command lines of the whole pipeline but for some stages."""
    data = {key: value for key, value in WHOLE.items() if key not in absent}
    data |= {key: tuple(value) for key, value in data.items() if key == "generators"} | changed
    config = PipelineConfig(**data)  # of files that nobody reads
    return [" ".join([command.stage, *command.flags]) for command in commands(config, "way")]


def test_each_command_is_told_what_those_before_it_make():
    assert flags_of() == [
        "zoo --config z.yaml --name way",
        "align --config a.yaml --name way-aligned --zoo way",
        "generator --config way.yaml --name way --zoo way-aligned",
        "sample --config s.yaml --name way-samples --generator way",
        "generator --config g/flat.yaml --name way-flat --zoo way-aligned",
        "sample --config s.yaml --name way-flat-samples --generator way-flat",
        "evaluate --config e.yaml --name way --zoo way-aligned --samples way-samples "
        "way-flat-samples",
        "measure --config m.yaml --name way --zoo way-aligned",
        "finetune --config f.yaml --name way --zoo way-aligned --samples way-samples "
        "way-flat-samples",
    ]


def test_any_stage_may_be_absent():
    assert flags_of("align", "evaluate", "measure", "finetune", generators=["flat.yaml"]) == [
        "zoo --config z.yaml --name way",
        "generator --config flat.yaml --name way-flat --zoo way",
        "sample --config s.yaml --name way-flat-samples --generator way-flat",
    ]
    assert flags_of(
        "zoo", "sample", "measure", "finetune", generators=["flat.yaml"]
    ) == [  # a zoo that is there
        "align --config a.yaml --name way-aligned --zoo way",
        "generator --config flat.yaml --name way-flat --zoo way-aligned",
        "evaluate --config e.yaml --name way --zoo way-aligned",
    ]
    assert flags_of("zoo", "align", "generators", "sample") == [
        "evaluate --config e.yaml --name way --zoo way",
        "measure --config m.yaml --name way --zoo way",
        "finetune --config f.yaml --name way --zoo way",
    ]
    assert flags_of(*WHOLE, zoo="z.yaml", predictor="p.yaml")[1:] == [
        "predictor --config p.yaml --name way-predictors --zoos way",
    ]


def test_each_generator_is_fitted_and_drawn_from_under_each_seed():
    """Seeds 1 and 2 in place of its own, or as far above the seed of the whole way."""
    wanted = [
        "generator --config g.yaml --name way-g-s1 --zoo way --seed 1",
        "sample --config s.yaml --name way-g-s1-samples --generator way-g-s1 --seed 1",
        "generator --config g.yaml --name way-g-s2 --zoo way --seed 2",
        "sample --config s.yaml --name way-g-s2-samples --generator way-g-s2 --seed 2",
        "evaluate --config e.yaml --name way --zoo way --samples way-g-s1-samples way-g-s2-samples",
    ]
    few = ("zoo", "align", "measure", "finetune")
    assert flags_of(*few, generators=["g.yaml"], seeds=2) == wanted
    higher = flags_of(*few, generators=["g.yaml"], seeds=2, seed=7)
    assert higher[2] == wanted[2].replace("--seed 2", "--seed 9")
    assert higher[-1] == f"{wanted[-1]} --seed 7"
    assert flags_of(*few, generators=["g.yaml"], seed=7)[0].endswith("way-g --zoo way --seed 7")


def test_a_pipeline_of_nothing_and_samples_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="names no stage: give a settings file to zoo"):
        build(PipelineConfig, {"seed": 1}, source="way.yaml")
    with pytest.raises(ValueError, match=r"sample = 's.yaml' has nothing to draw from: add gener"):
        flags_of("generators")


def test_the_newest_and_the_preferred_are_read():
    made = {"zoo": ["a"], "align": ["b", "c"], "sample": ["d", "e"]}
    assert links("generator", made) == {"zoo": "c"}
    assert links("evaluate", made) == {"zoo": "c", "samples": ("d", "e")}
    assert links("align", {"zoo": ["a"]}) == {"zoo": "a"} and links("zoo", {}) == {}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_has_its_call_and_the_settings_that_link_it(name):
    stage = STAGES[name]
    assert callable(stage.run)
    assert {*stage.reads, *stage.reads_all} <= stage.config.__dataclass_fields__.keys()
    assert {m for makers in stage.reads.values() for m in makers} <= STAGES.keys()


def test_a_command_without_samples_has_no_flag_for_them():
    assert Command("evaluate", "e.yaml", name="w", links={"zoo": "z", "samples": ()}).flags == [
        *("--config", "e.yaml", "--name", "w", "--zoo", "z")
    ]
