"""What zoos say of themselves that tests write without training."""

import math

import numpy as np

from dwf.datasets.config import DataConfig
from dwf.datasets.known import input_shape
from dwf.networks.config import MLPConfig, NetworkConfig
from dwf.zoo.facts import Facts
from dwf.zoo.layout import Layout
from dwf.zoo.provenance import Sampled
from dwf.zoo.shard import Columns
from dwf.zoo.store import Zoo, write_zoo


def facts_of(
    layout: Layout, network: NetworkConfig | None = None, num_shards: int = 1, **told
) -> Facts:
    """Facts of networks on the digits, or on `data`; in the tests of shards they may be any."""
    network, data = network or MLPConfig((64, 10)), told.pop("data", DataConfig("digits"))
    shape, own = input_shape(data), network.input_shape
    if own is not None and None not in own and math.prod(own) != math.prod(shape):
        shape = own
    told = {"input_shape": shape, "seed": 0} | told
    return Facts(layout=layout, num_shards=num_shards, network=network, data=data, **told)


def write_rows(folder, facts: Facts, weights_ND: np.ndarray, columns: Columns | None = None) -> Zoo:
    """A zoo of one shard with these weights, a network each."""
    count = len(weights_ND)
    table = {"network": np.arange(count), "epoch": np.zeros(count, int)} | (columns or {})
    blocks = [(table, weights_ND.astype(np.float32))]
    return write_zoo(folder, facts, num_rows=count, blocks=blocks)


def bare_facts(zoo: Zoo) -> Facts:
    """What is true of a zoo's networks however they were made, for a zoo of one shard."""
    return Facts(layout=zoo.layout, num_shards=1, **vars(zoo.facts.subject))


def sampled(**told) -> Sampled:
    """Where networks come from that were drawn by a flow."""
    usual = {"generator": "flow", "digest": "0" * 16, "zoo": "z", "zoo_fingerprint": "1" * 16}
    usual |= {"seed": 7, "solver": "rk4", "steps": 100, "evaluations_per_sample": 400.0}
    return Sampled(**usual | told)
