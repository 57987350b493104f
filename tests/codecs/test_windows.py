"""Windows against the same networks tokenised, and permuted, as a whole."""

import itertools

import numpy as np
import pytest
import torch

from dwf.align.groups import permute
from dwf.align.symmetry import symmetry_of
from dwf.codecs.config import TokenSettings
from dwf.codecs.tokens.geometry import Geometry
from dwf.codecs.tokens.scaling import TokenScaling
from dwf.codecs.windows import cutter as window_cutter
from dwf.codecs.windows.moves import Moves
from dwf.codecs.windows.sampler import WindowSampler
from dwf.errors import ConfigError, ShapeMismatch, TooFewNetworks
from dwf.networks.config import MLPConfig, PythonConfig
from dwf.randomness import numbers_at, seed_of
from dwf.zoo.store import Zoo
from tests.codecs.zoos import ARCHITECTURES, CNN3, write_random_zoo


@pytest.fixture
def zoo_of(tmp_path):
    def write(name, **settings):
        return write_random_zoo(tmp_path / name, *ARCHITECTURES[name], **settings)

    return write


def scaled(geometry, seed=0):
    rng = np.random.default_rng(seed)
    num = len(geometry.layers)
    return TokenScaling(
        rng.standard_normal(num).astype(np.float32), rng.uniform(0.5, 2, num).astype(np.float32)
    )


def sampler_of(zoo, geometry, window, rows=None, **settings):
    scaling = settings.pop("scaling", TokenScaling.fit([], geometry, kind="none"))
    rows = np.arange(len(zoo)) if rows is None else rows
    return WindowSampler([(zoo, rows)], [geometry], scalings=[scaling], window=window, **settings)


def orders_of(groups, seed, step, example, view):
    """The orders that an example's view is in: they sort the numbers of its part of the stream."""
    sizes = [group.size for group in groups]
    first = 1 + view * sum(sizes) + (example << 32)
    places = np.arange(first, first + sum(sizes), dtype=np.uint64)
    keys = numbers_at(seed_of(seed, "windows", step), places)
    return [
        torch.from_numpy(part.argsort())[None] for part in np.split(keys, np.cumsum(sizes))[:-1]
    ]


@pytest.mark.parametrize("packing", ["rows", "dense"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_permuted_window_is_that_of_the_network_permuted_as_a_whole(zoo_of, name, packing):
    zoo = zoo_of(name, num_shards=2)
    groups = symmetry_of(zoo.build_network(), zoo.layout, input_shape=zoo.input_shape)
    moved = 0
    for size, window in ((5, 40), (11, 13), (32, 500)):
        geometry = Geometry.of(zoo.layout, TokenSettings(size, packing, buffers=True))
        scaling, seed, step = scaled(geometry), 3, 2
        settings = {"views": ("canonical", "permuted", "permuted"), "places": True, "seed": seed}
        batch = sampler_of(zoo, geometry, window=window, scaling=scaling, **settings).batch(
            step, 8, start=0, stop=8
        )
        num = batch.tokens_VBWC.shape[2]
        for b in range(8):
            row_1D = torch.from_numpy(zoo.read(batch.row_B[[b]].numpy()))
            start = int(batch.positions_BW3[b, 0, 0])
            count = min(num, geometry.num_tokens)
            part = slice(start, start + count)
            assert torch.equal(batch.positions_BW3[b, :count], geometry.positions_T3[part])
            mask = geometry.mask_TC[part]
            assert torch.equal(batch.mask_BWC[b, :count], mask)
            for view in range(3):
                orders = orders_of(groups, seed, step=step, example=b, view=view)
                whole = (
                    permute(row_1D, zoo.layout, groups=groups, orders=orders) if view else row_1D
                )
                layer_W = geometry.layer_of_token_T[part]
                wanted = scaling.apply(geometry.tokenise(whole)[0, part], layer_W, mask_TC=mask)
                assert torch.equal(batch.tokens_VBWC[view, b, :count], wanted)
                assert not batch.tokens_VBWC[view, b, count:].any()
                places = batch.places_VBWC[view, b, :count]
                assert torch.equal(places >= 0, mask) and (places[~mask] == -1).all()
                found = torch.where(mask, row_1D[0][places.clamp(min=0)], 0)
                assert torch.equal(found, geometry.tokenise(whole)[0, part])
                moved += view > 0 and not torch.equal(whole, row_1D)
    assert moved > 40


def same(one, other):
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a is b or (torch.equal(a, b) if torch.is_tensor(a) else a == b) for a, b in pairs)


def test_indices_of_whole_layers_are_held_for_few_windows_at_once(zoo_of, monkeypatch):
    zoo = zoo_of("grouped")
    geometry = Geometry.of(zoo.layout, TokenSettings(11))
    whole = sampler_of(zoo, geometry, window=30, places=True, seed=1).batch(0, 12, start=0, stop=12)
    held, places = [], Moves.places

    def count(moves, orders):
        found = places(moves, orders)
        held.append(0 if found.whole_ERI is None else found.whole_ERI.size)
        return found

    monkeypatch.setattr(Moves, "places", count)
    monkeypatch.setattr(window_cutter, "_MOST_AT_ONCE", 1000)
    monkeypatch.setattr(window_cutter, "_MOST_EXTENTS", 2)
    sampler = sampler_of(zoo, geometry, window=30, places=True, seed=1)
    assert same(sampler.batch(0, 12, start=0, stop=12), whole)
    assert 0 < max(held) <= 1000
    assert all(len(cutter._extents) <= 2 for cutter in sampler._cutters)


def test_any_number_of_ranks_cuts_one_global_batch(zoo_of):
    zoo = zoo_of("cnn", num_shards=3)
    geometry = Geometry.of(zoo.layout, TokenSettings(9))
    settings = {"views": ("permuted", "permuted"), "seed": 5}
    whole = sampler_of(zoo, geometry, window=12, **settings).batch(7, 10, start=0, stop=10)
    for edges in ((0, 5, 10), (0, 1, 2, 9, 10)):
        parts = [
            sampler_of(zoo, geometry, window=12, **settings).batch(7, 10, start=start, stop=stop)
            for start, stop in itertools.pairwise(edges)
        ]
        assert torch.equal(torch.cat([p.tokens_VBWC for p in parts], 1), whole.tokens_VBWC)
        assert torch.equal(torch.cat([p.mask_BWC for p in parts]), whole.mask_BWC)
        assert torch.equal(torch.cat([p.positions_BW3 for p in parts]), whole.positions_BW3)
        assert torch.equal(torch.cat([p.row_B for p in parts]), whole.row_B)
        assert sum(p.num_bytes for p in parts) == whole.num_bytes
    sampler = sampler_of(zoo, geometry, window=12, **settings)
    sampler.batch(0, 10, start=0, stop=10)
    assert same(sampler.batch(7, 10, start=0, stop=10), whole)  # whatever was cut before
    assert not same(sampler.batch(8, 10, start=0, stop=10), whole)
    other = sampler_of(zoo, geometry, window=12, views=("permuted", "permuted"), seed=6)
    assert not same(other.batch(7, 10, start=0, stop=10), whole)


def test_each_network_is_taken_once_before_one_is_taken_again(zoo_of):
    mlp, cnn = zoo_of("mlp", count=5), zoo_of("cnn", count=9)
    rows = np.array([1, 4, 6, 8])
    geometries = [Geometry.of(zoo.layout, TokenSettings(9)) for zoo in (mlp, cnn)]
    scalings = [TokenScaling.fit([], geometry, kind="none") for geometry in geometries]
    sources = [(mlp, np.arange(5)), (cnn, rows)]
    sampler = WindowSampler(sources, geometries, scalings=scalings, window=8, views=("canonical",))
    seen = []
    for step in range(9):
        batch = sampler.batch(step, 4, start=0, stop=4)
        seen += zip(batch.source_B.tolist(), batch.row_B.tolist(), strict=True)
    every = [(0, row) for row in range(5)] + [(1, row) for row in rows.tolist()]
    for epoch in range(4):
        assert sorted(seen[9 * epoch : 9 * epoch + 9]) == every
    assert seen[:9] != seen[9:18]


def test_a_mixed_batch_pads_the_shorter_networks(zoo_of):
    mlp, cnn = zoo_of("mlp"), zoo_of("cnn")
    geometries = [
        Geometry.of(mlp.layout, TokenSettings(30)),
        Geometry.of(cnn.layout, TokenSettings(30)),
    ]
    lengths = [geometry.num_tokens for geometry in geometries]
    scalings = [scaled(geometry, seed) for seed, geometry in enumerate(geometries)]
    sources = [(mlp, np.arange(6)), (cnn, np.arange(6))]
    sampler = WindowSampler(
        sources, geometries, scalings=scalings, window=10_000, views=("canonical", "permuted")
    )
    assert sampler.num_tokens == max(lengths) > min(lengths)
    batch = sampler.batch(0, 12, start=0, stop=12)
    assert sorted(batch.source_B.tolist()) == [0] * 6 + [1] * 6
    for b, (source, row) in enumerate(zip(batch.source_B, batch.row_B, strict=True)):
        geometry, zoo, length = geometries[source], sources[source][0], lengths[source]
        tokens = geometry.tokenise(torch.from_numpy(zoo.read([int(row)])))[0]
        tokens = scalings[source].apply(tokens, geometry.layer_of_token_T, mask_TC=geometry.mask_TC)
        assert torch.equal(batch.tokens_VBWC[0, b, :length], tokens)
        assert torch.equal(batch.mask_BWC[b, :length], geometry.mask_TC)
        assert not batch.mask_BWC[b, length:].any()
        assert not batch.tokens_VBWC[:, b, length:].any()
        assert not batch.positions_BW3[b, length:].any()


def test_orders_and_middles_are_uniform(tmp_path):
    zoo = write_random_zoo(tmp_path / "z", MLPConfig((2, 3, 2)), shape=(1, 1, 2), count=4)
    geometry = Geometry.of(
        zoo.layout, TokenSettings(3)
    )  # 5 tokens: 3 hidden units, then 2 outputs of 4 numbers
    assert geometry.num_tokens == 7
    settings = {"views": ("canonical", "permuted"), "places": True}
    counts, starts = {}, np.zeros(5)
    sampler = sampler_of(zoo, geometry, window=3, **settings)
    for step in range(40):
        batch = sampler.batch(step, 150, start=0, stop=150)
        first_B = batch.positions_BW3[:, 0, 0]
        starts += np.bincount(first_B, minlength=5)
        whole = batch.places_VBWC[1, first_B == 0, :3, 0] // 2  # the unit that each token is of
        for order in map(tuple, whole.tolist()):
            counts[order] = counts.get(order, 0) + 1
    # A middle at tokens 0, 1, ..., 6: the window begins one before it, where that is possible.
    wanted = np.array([2, 1, 1, 1, 2]) / 7 * 6000
    assert (np.abs(starts - wanted) < 4 * np.sqrt(wanted)).all()
    total = sum(counts.values())
    assert len(counts) == 6 and total == starts[0]
    assert all(abs(found - total / 6) < 4 * np.sqrt(total / 6) for found in counts.values())


@pytest.mark.parametrize(
    ("views", "reads"),
    [
        (("canonical",), 1),
        (("canonical", "canonical"), 1),
        (("canonical", "permuted"), 2),
        (("permuted", "permuted"), 2),
    ],
)
@pytest.mark.parametrize("packing", ["rows", "dense"])
def test_bytes_are_those_of_the_windows(zoo_of, views, reads, packing):
    zoo = zoo_of("cnn")
    sampler = sampler_of(
        zoo,
        Geometry.of(zoo.layout, TokenSettings(7, packing)),
        window=10,
        views=views,
        places=True,
        seed=1,
    )
    batch = sampler.batch(0, 20, start=0, stop=20)
    assert batch.num_bytes == 4 * reads * int(batch.mask_BWC.sum())
    assert len(batch.tokens_VBWC) == len(views)
    if reads == 1:
        assert torch.equal(batch.tokens_VBWC[0], batch.tokens_VBWC[-1])
        assert torch.equal(batch.places_VBWC[0], batch.places_VBWC[-1])


def test_validation_windows_are_always_the_same(zoo_of):
    zoo = zoo_of("cnn", count=7)
    geometry = Geometry.of(zoo.layout, TokenSettings(9))
    sampler = sampler_of(zoo, geometry, window=12)
    batches = sampler.validation(10, batch_size=4)
    assert [len(batch.row_B) for batch in batches] == [4, 4, 2]
    sampler.batch(3, 4, start=0, stop=4)
    again = sampler_of(zoo, geometry, window=12).validation(10, batch_size=4)
    assert all(map(same, batches, again))
    (whole,) = sampler.validation(10)
    assert torch.equal(torch.cat([batch.tokens_VBWC for batch in batches], 1), whole.tokens_VBWC)
    assert sorted(whole.row_B[:7].tolist()) == list(range(7))
    trained = sampler.batch(0, 10, start=0, stop=10)
    assert not torch.equal(trained.positions_BW3, whole.positions_BW3)


def test_describes_a_batch_rows_that_are_not_finite_first(zoo_of):
    zoo = zoo_of("mlp", count=6, num_shards=2)
    shard = zoo.shards[1]
    zoo.read()  # altered before that, the row would be refused by its checksum
    with open(shard.path, "r+b") as file:
        file.seek(shard.offset + 4 * (2 * zoo.layout.size + 50))
        file.write(np.float32(np.nan).tobytes())
    sampler = sampler_of(
        zoo, Geometry.of(zoo.layout, TokenSettings(9)), window=12, rows=np.array([0, 2, 3, 5])
    )
    first, second = (str(shard.path) for shard in zoo.shards)
    told = f"{second}: rows 2 are not finite; {first}: rows 0, 2; {second}: rows 0"
    assert sampler.describe(0, 4) == told
    row = int(sampler.batch(5, 1, start=0, stop=1).row_B[0])
    of_one = sampler.describe(5, 1)
    assert of_one.startswith(f"{zoo.shards[row // 3].path}: rows {row % 3}")


def test_more_shards_than_may_be_mapped(zoo_of, monkeypatch):
    zoo = zoo_of("mlp", count=8, num_shards=8)
    geometry = Geometry.of(zoo.layout, TokenSettings(9))
    wanted = sampler_of(zoo, geometry, window=12).batch(0, 8, start=0, stop=8)
    zoo = Zoo.open(zoo.path)
    monkeypatch.setattr("dwf.zoo.store._MOST_MAPPED", 3)
    for step in range(2):
        found = sampler_of(zoo, geometry, window=12).batch(step, 8, start=0, stop=8)
        assert sum("weights" in vars(shard) for shard in zoo.shards) == 3
        assert step or same(found, wanted)


def test_what_does_not_fit_is_refused(zoo_of, tmp_path):
    mlp, cnn = zoo_of("mlp"), zoo_of("cnn")
    of_mlp, of_cnn = (Geometry.of(zoo.layout, TokenSettings(9)) for zoo in (mlp, cnn))
    with pytest.raises(TooFewNetworks, match="0 networks to cut windows of"):
        sampler_of(mlp, of_mlp, window=8, rows=np.arange(0))
    with pytest.raises(ShapeMismatch, match=f"{mlp.layout.digest}.*{cnn.layout.digest}"):
        sampler_of(mlp, of_cnn, window=8)
    scalings = [TokenScaling.fit([], each, kind="none") for each in (of_mlp, of_cnn)]
    with pytest.raises(
        ShapeMismatch, match=r"tokens of 8 numbers beside tokens of 9.*codec\.tokens\.size"
    ):
        geometries = [of_mlp, Geometry.of(cnn.layout, TokenSettings(8))]
        WindowSampler(
            [(mlp, np.arange(2)), (cnn, np.arange(2))], geometries, scalings=scalings, window=8
        )
    config = PythonConfig("tests.codecs.zoos:Summed")
    summed = write_random_zoo(tmp_path / "summed", config, shape=(1, 2, 2))
    geometry = Geometry.of(summed.layout, TokenSettings(4))
    with pytest.raises(ConfigError, match=r"cumsum.*codec\.views to \[canonical, canonical\]"):
        sampler_of(summed, geometry, window=8)
    views = ("canonical", "canonical")
    assert (
        sampler_of(summed, geometry, window=8, views=views).batch(0, 2, start=0, stop=2).num_bytes
    )


def test_a_large_window_is_cut_in_parts(tmp_path, monkeypatch):
    """More numbers at once than stay in cache: the same bits."""
    zoo = write_random_zoo(tmp_path / "cnn3", CNN3, shape=(3, 32, 32), count=3)
    geometry = Geometry.of(zoo.layout, TokenSettings(289))
    wanted = sampler_of(zoo, geometry, window=64, places=True).batch(0, 6, start=0, stop=6)
    monkeypatch.setattr("dwf.codecs.windows.cutter._MOST_AT_ONCE", 500)
    monkeypatch.setattr("dwf.codecs.windows.cutter._MOST_EXTENTS", 2)
    assert same(
        sampler_of(zoo, geometry, window=64, places=True).batch(0, 6, start=0, stop=6), wanted
    )
