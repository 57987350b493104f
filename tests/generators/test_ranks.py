"""`launch/generator.py` by ranks that train a density together, against one process."""

import dataclasses

import pytest
import torch
import yaml

from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator
from dwf.metrics import read_metrics
from dwf.settings import to_dict
from tests.ranked import launch

pytestmark = pytest.mark.deepspeed


@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_two_ranks_fit_the_flow_of_one_process(make_zoo, tmp_path, flow_on_pca, engine):
    make_zoo()
    training = dataclasses.replace(
        flow_on_pca.density.training, steps=20, validate_every=1, batch_size=8
    )
    density = dataclasses.replace(flow_on_pca.density, training=training)
    config = dataclasses.replace(flow_on_pca, density=density, likelihood=4)
    one = fit_generator(config, tmp_path, name="one")
    file = tmp_path / "ranks.yaml"
    file.write_text(yaml.safe_dump(to_dict(config)))
    words = ["launch/generator.py", "--config", file, "--root", tmp_path, "--engine", engine]
    ran = launch(2, *words)
    assert ran.returncode == 0, ran.stderr
    assert f"engine {engine}" in ran.stdout and ran.stdout.count("ranks: 2, batch 8 as 2") == 1
    ranks = Generator.load(tmp_path / "runs" / "ranks")
    lines, wanted = (
        read_metrics(tmp_path / "runs" / name / "metrics.jsonl") for name in ("ranks", "one")
    )
    for key in ("train_loss", "val_loss"):
        losses = [line[key] for line in lines]
        assert losses == pytest.approx([line[key] for line in wanted], abs=1e-5)
    torch.testing.assert_close(ranks.sample(4, seed=0), one.sample(4, seed=0), rtol=0, atol=1e-3)
    again = launch(2, *words)
    assert again.returncode == 0 and "is finished already" in again.stderr
