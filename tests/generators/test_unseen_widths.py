"""Networks of widths that no zoo has: drawn as asked for, told, and refused without room."""

import dataclasses

import numpy as np
import pytest
import torch

from dwf.backbones.config import TransformerConfig
from dwf.codecs.config import FunctionsConfig
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.errors import ConfigError
from dwf.evaluation.frames import refuse_other_frame, unseen_notes
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import MLPConfig
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.zoo.store import Zoo

WIDTHS = {"small": (64, 6, 5, 10), "wide": (64, 8, 7, 10)}
UNSEEN = ((7, 6), (9, 9))
FLOW = FlowConfig(
    backbone=TransformerConfig(width=16, heads=2, depth=1),
    training=LoopConfig(
        steps=4,
        batch_size=8,
        ema=0.9,
        validate_every=2,
        compute=LoopComputeConfig(threads=1, device="cpu"),
    ),
    solver=SolverConfig(method="euler", steps=2),
    standardise="none",
)
CODEC = FunctionsConfig(inputs=60, functions=12, components=8, unseen_widths=UNSEEN)
MIXED = GeneratorConfig("small", codec=CODEC, density=FLOW, more_zoos=("wide",), likelihood=4)


def test_widths_that_no_zoo_has_are_drawn_where_there_is_room(make_zoo, tmp_path):
    for seed, (name, widths) in enumerate(WIDTHS.items()):
        make_zoo(widths=widths, name=name, seed=seed)
    fit_generator(MIXED, tmp_path, name="g")
    for hidden in UNSEEN:
        network = MLPConfig((64, *hidden, 10))
        config = SampleConfig(generator="g", count=5, seed=2, network=network)
        drawn = sample_networks(config, tmp_path, name=f"drawn-{hidden[0]}")
        assert drawn.facts.network == network and np.isfinite(drawn.read()).all()
        told = drawn.facts.sampled
        assert told.architecture["tokens"] == sum(hidden) + 1 and "layer 2" in told.unreached
        generator = Generator.load(tmp_path / "runs" / "g")
        kind = generator.codec.shape.layouts.index(drawn.layout.digest)
        codes = generator.density.sample(5, 2, kind=kind)
        wanted = generator.codec.draw(codes, drawn.layout, seed=2)
        assert torch.equal(torch.from_numpy(drawn.read()), wanted)
        (note,) = unseen_notes([drawn])
        assert f"generator of drawn-{hidden[0]} learnt from no networks of these widths" in note
    zoo = make_zoo(widths=network.widths, name="trained")
    refuse_other_frame(zoo, [drawn])
    with pytest.raises(ConfigError, match="networks of another architecture"):
        refuse_other_frame(Zoo.open(tmp_path / "zoos" / "wide"), [drawn])
    learnt = sample_networks(
        SampleConfig(generator="g", count=3, zoo="wide"), tmp_path, name="learnt"
    )
    assert learnt.facts.network == MLPConfig(WIDTHS["wide"])
    assert unseen_notes([learnt]) == []
    config = dataclasses.replace(config, network=MLPConfig((64, 20, 20, 10)))
    with pytest.raises(ConfigError, match=r"their hidden widths among codec.unseen_widths"):
        sample_networks(config, tmp_path, name="other")
