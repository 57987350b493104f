"""`launch/generator.py` by real MPI ranks: the generator of one process."""

import dataclasses

import numpy as np
import pytest
import torch
import yaml

from dwf.codecs.config import FlatConfig
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator
from dwf.settings import to_dict
from tests.mpi import run_ranks

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("codec", ["pca", "flat"])
def test_ranks_fit_the_generator_of_one_process(make_zoo, tmp_path, flow_on_pca, codec):
    make_zoo()
    if codec == "flat":
        flow_on_pca = dataclasses.replace(flow_on_pca, codec=FlatConfig())
    one = fit_generator(flow_on_pca, tmp_path, name="one")
    file = tmp_path / "ranks.yaml"
    file.write_text(yaml.safe_dump(to_dict(flow_on_pca)))
    command = ["launch/generator.py", "--config", file, "--root", tmp_path]
    ran = run_ranks(2, *command)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("generator in ") == ran.stdout.count("training and") == 1
    ranks = Generator.load(tmp_path / "runs" / "ranks")
    assert ranks.digest == one.digest and ranks.codec.facts == one.codec.facts
    for name, array in one.codec.arrays.items():
        assert np.array_equal(ranks.codec.arrays[name], array), name
    assert torch.equal(ranks.sample(4, seed=0), one.sample(4, seed=0))
