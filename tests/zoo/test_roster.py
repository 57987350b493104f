"""What varies in a zoo: grids and ranges against plain loops, and who is in which shard."""

import itertools

import numpy as np
import pytest

from dwf.datasets.config import DataConfig
from dwf.networks.config import MLPConfig
from dwf.settings import build
from dwf.zoo import roster
from dwf.zoo.config import RangeConfig, RecipeConfig, SplitConfig, VaryConfig, ZooConfig


def config(**changes) -> ZooConfig:
    given = {"network": MLPConfig((4, 3, 2)), "data": DataConfig("iris"), "count": 10}
    return ZooConfig(**(given | changes))


def test_lists_are_a_grid_the_last_turning_fastest():
    vary = VaryConfig(learning_rate=(0.1, 0.2), optimizer=("sgd", "adam", "adamw"))
    table = roster.hyper_parameters(config(vary=vary), range(7))
    grid = list(itertools.product((0.1, 0.2), ("sgd", "adam", "adamw")))
    found = list(zip(table["learning_rate"], table["optimizer"], strict=True))
    assert found == grid + grid[:1]
    assert (table["initialisation"] == "default").all()


def test_ranges_are_drawn_from_a_stream_of_each_network_alone():
    vary = VaryConfig(learning_rate=RangeConfig(1e-4, 1e-1, scale="log"))
    rates = roster.hyper_parameters(config(vary=vary), range(2000))["learning_rate"]
    assert roster.hyper_parameters(config(vary=vary), [1234])["learning_rate"][0] == rates[1234]
    assert rates.min() >= 1e-4 and rates.max() <= 1e-1
    logs = np.log10(rates)
    assert logs.mean() == pytest.approx(-2.5, abs=0.06) and logs.std() == pytest.approx(
        3 / 12**0.5, abs=0.04
    )


def test_shards_and_cohorts_hold_every_network_once():
    zoo = config(count=23, shard=8)
    cohorts = [c for i in range(zoo.num_shards) for c in roster.cohorts_of_shard(zoo, i, size=3)]
    assert [n for cohort in cohorts for n in cohort] == list(range(23))
    assert max(len(cohort) for cohort in cohorts) == 3 and zoo.num_shards == 3


def test_cohorts_fit_a_cache_unless_a_size_is_asked_for():
    assert roster.cohort_size(config(shard=64), 26_506, num_inputs=784) == 8
    assert roster.cohort_size(config(shard=256), 1_210, num_inputs=64) == 128
    assert roster.cohort_size(config(shard=64), 10**9, num_inputs=784) == 1
    assert roster.cohort_size(config(cohort=64, shard=32), 26_506, num_inputs=784) == 32


def test_equal_runs():
    table = {"a": np.array([1, 1, 2, 2, 2, 1]), "b": np.array(["x", "x", "x", "y", "y", "y"])}
    runs = roster.equal_runs(table, ("a", "b"))
    assert runs == [slice(0, 2), slice(2, 3), slice(3, 5), slice(5, 6)]


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match=r"keep_epochs = \[9\]: the recipe ends at 5"):
        config(keep_epochs=(1, 9), recipe=RecipeConfig(epochs=5))
    with pytest.raises(ValueError, match="no network is left"):
        SplitConfig(val=0.5, test=0.5)
    with pytest.raises(ValueError, match="low < high"):
        RangeConfig(0.0, 1.0, scale="log")
    with pytest.raises(ValueError, match=r"dropout from 0.5 to 1.5: allowed is at least 0, at"):
        VaryConfig(dropout=RangeConfig(0.5, 1.5))
    with pytest.raises(ValueError, match=r"momentum = \[\]: a list of at least one value"):
        VaryConfig(momentum=())


def test_what_varies_may_be_a_list_or_a_range_in_a_file():
    data = {"learning_rate": {"low": 0.1, "high": 1.0}, "dropout": [0.0, 0.5]}
    vary = build(VaryConfig, data, source="file")
    assert vary == VaryConfig(learning_rate=RangeConfig(0.1, 1.0), dropout=(0.0, 0.5))
