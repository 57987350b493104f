"""PCA and moments by real MPI ranks: the bytes of one process; each rank reads its own part."""

import re

import numpy as np
import pytest

from dwf.codecs import pca
from dwf.codecs.codec import Codec
from dwf.codecs.config import FlatConfig, PcaConfig
from dwf.codecs.flat import FlatCodec
from dwf.codecs.pca import PcaCodec
from dwf.zoo import moments
from dwf.zoo.moments import measure_moments
from tests.mpi import run_ranks

pytestmark = pytest.mark.mpi
WINDOW_BYTES = 4 * 20 * 3  # a few columns: many windows, several in each part
MOST_PARTS = 6

FIT = """
import sys
from pathlib import Path
import numpy as np
from dwf.codecs import pca
from dwf.zoo import moments
from dwf.codecs.config import PcaConfig
from dwf.ranks import exit_together, world
from dwf.zoo.store import Zoo
from tests.ranked import open_run

zoo, folder, windows, parts = sys.argv[1:]
pca.WINDOW_BYTES, moments.MOST_PARTS = int(windows), int(parts)
centred, read = pca.PcaCodec._centred, []

def noted(self, reader, span):
    read.append(span[1] - span[0])
    return centred(self, reader, span)

pca.PcaCodec._centred = noted

def main():
    ours, opened = world(), Zoo.open(zoo)
    train, val = ([(opened, opened.rows(split=split))] for split in ("train", "val"))
    run = open_run(Path(folder))
    codec = pca.PcaCodec(PcaConfig(components=6)).fit(train, val, run=run)
    print(f"rank {ours.rank} read {sum(read)} columns")
    gram_NN = codec._gram(train)
    ours.on_first(lambda: (codec.save(run.path / "codec"), np.save(run.path / "gram", gram_NN)))
    gathered = moments.measure_moments(train, max_bytes=1000)
    ours.on_first(lambda: np.save(run.path / "moments", gathered.variance_D))
    for array in (gram_NN, gathered.variance_D, codec.components_CK, *codec.arrays.values()):
        assert len({part.tobytes() for part in ours.in_order(ours.size, lambda _: array)}) == 1
    assert codec.facts == ours.on_first(lambda: codec.facts)

exit_together(main)
"""


@pytest.mark.parametrize("num", [2, 4])
def test_any_number_of_ranks_gives_the_same_bits(plant_zoo, run, tmp_path, monkeypatch, num):
    zoo = plant_zoo(num_shards=3)
    ran = run_ranks(num, "-c", FIT, zoo.path, tmp_path / "ranks", WINDOW_BYTES, MOST_PARTS)
    assert ran.returncode == 0, ran.stderr
    monkeypatch.setattr(pca, "WINDOW_BYTES", WINDOW_BYTES)
    monkeypatch.setattr(moments, "MOST_PARTS", MOST_PARTS)
    train, val = ([(zoo, zoo.rows(split=split))] for split in ("train", "val"))
    codec = PcaCodec(PcaConfig(components=6)).fit(train, val, run=run)
    np.save(run.path / "gram", codec._gram(train))
    np.save(run.path / "moments", measure_moments(train, max_bytes=1000).variance_D)
    codec.save(run.path / "codec")
    for name in ("gram.npy", "moments.npy", "codec/components.npy", "codec/codec.json"):
        assert (tmp_path / "ranks" / name).read_bytes() == (run.path / name).read_bytes(), name
    other = Codec.load(tmp_path / "ranks" / "codec")
    for name, array in codec.arrays.items():
        assert np.array_equal(other.arrays[name], array), name
    read = {
        int(rank): int(columns) for rank, columns in re.findall(r"rank (\d) read (\d+)", ran.stdout)
    }
    assert len(read) == num
    # Two passes shared by all; the first also measures the held-out networks.
    assert all(read[rank] <= 2 * codec.num_covered / num + 12 for rank in range(1, num))
    assert sum(read.values()) == 3 * codec.num_covered


def test_too_few_networks_are_told_of_once(plant_zoo, tmp_path):
    zoo = plant_zoo(count=5)
    ran = run_ranks(2, "-c", FIT, zoo.path, tmp_path / "few", WINDOW_BYTES, MOST_PARTS)
    assert ran.returncode == 2
    assert ran.stderr.count("error: codec.components = 6, but 3 training networks") == 1, ran.stderr


ENCODE = """
import sys
from pathlib import Path
import numpy as np
from dwf.codecs import codec, codes
from dwf.codecs.codec import Codec
from dwf.ranks import exit_together, world
from dwf.zoo.moments import blocks_of
from dwf.zoo.store import Zoo

zoo, folder, most = sys.argv[1:]
codes.MOST_HELD = int(most)
codec.blocks_of = lambda sources: blocks_of(sources, 4 * 20 * 3)
coded = []

def main():
    ours, opened = world(), Zoo.open(zoo)
    fitted = Codec.load(Path(folder) / "codec")
    encode = fitted.encode

    def noted(weights_ND, layout):
        coded.append(len(weights_ND))
        return encode(weights_ND, layout)

    fitted.encode = noted
    found = fitted.encode_zoo([(opened, opened.rows(split="train"))], Path(folder) / "train.npy")
    np.save(Path(folder) / f"rank-{ours.rank}", found.values.numpy())
    print(f"rank {ours.rank} coded {sum(coded)}, mapped {found.values.untyped_storage().nbytes()}")

exit_together(main)
"""


@pytest.mark.parametrize("most_held", [2**20, 8])
def test_ranks_share_the_coding_of_a_zoo_and_all_have_all_codes(
    plant_zoo, run, tmp_path, most_held
):
    """Held or mapped from one file."""
    zoo = plant_zoo(num_shards=3)
    rows = zoo.rows(split="train")
    codec = FlatCodec(FlatConfig()).fit([(zoo, rows)], [], run=run)
    codec.save(run.path / "codec")
    ran = run_ranks(3, "-c", ENCODE, zoo.path, run.path, most_held)
    assert ran.returncode == 0, ran.stderr
    wanted = codec.encode_zoo([(zoo, rows)]).values.numpy()
    for rank in range(3):
        assert np.array_equal(np.load(run.path / f"rank-{rank}.npy"), wanted)
    coded = [int(num) for num in re.findall(r"coded (\d+)", ran.stdout)]
    assert sum(coded) == len(rows) and all(num < len(rows) for num in coded)
    assert not list(run.path.glob("*.partial-*"))
