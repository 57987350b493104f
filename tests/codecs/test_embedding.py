"""Embeddings against plain means over tokens, and ridge probes against their normal equations."""

import numpy as np
import pytest
import torch

from dwf.codecs.codec import Codec
from dwf.codecs.codes import Codes, CodeShape
from dwf.codecs.config import FlatConfig, NeuronsConfig
from dwf.codecs.embedding import PENALTIES, embed, pool, ridge_probe
from dwf.codecs.flat import FlatCodec
from dwf.codecs.neurons.codec import NeuronsCodec
from dwf.commands import COMMANDS
from dwf.errors import CorruptShard, DwfError, ShapeMismatch, TooFewNetworks
from dwf.zoo.store import Zoo, write_zoo


@pytest.fixture
def fitted(make_zoo, run):
    """A codec of tokens of three layers and three widths, and its zoo."""
    zoo = make_zoo(40, (64, 6, 5, 10))
    return NeuronsCodec(NeuronsConfig()).fit([(zoo, zoo.rows("train"))], [], run=run), zoo


def plain_mean(codes: Codes, network: int, tokens: list[int]) -> list[float]:
    """Of each number of a token, over the tokens in which it is not padding."""
    means = []
    for c in range(codes.values.shape[2]):
        real = [float(codes.values[network, t, c]) for t in tokens if codes.shape.mask[t, c]]
        means.append(sum(real) / len(real) if real else 0.0)
    return means


def test_the_mean_is_that_of_a_plain_loop(fitted):
    codec, zoo = fitted
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    every = list(range(6 + 5 + 1))
    expected = [plain_mean(codes, n, tokens=every) for n in range(40)]
    found = embed(codec, zoo, rows=np.arange(40))
    assert found.dtype == np.float32 and found.shape == (40, codes.values.shape[2])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_layers_are_means_apart_one_after_the_other(fitted):
    codec, zoo = fitted
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    layers = [list(range(6)), list(range(6, 11)), [11]]
    expected = [
        np.concatenate([plain_mean(codes, n, tokens=each) for each in layers]) for n in range(40)
    ]
    found = embed(codec, zoo, rows=np.arange(40), pooling="layers")
    assert found.shape == (40, 3 * codes.values.shape[2])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rows_come_in_the_order_asked_for_whatever_the_blocks(fitted, monkeypatch):
    codec, zoo = fitted
    whole, rows = embed(codec, zoo, rows=np.arange(40)), np.array([7, 3, 30, 31])
    monkeypatch.setitem(Zoo.stream.__kwdefaults__, "max_bytes", 8 * zoo.layout.size)
    blocks = [len(rows_B) for rows_B, _ in zoo.stream(rows)]
    assert blocks == [2, 2]
    np.testing.assert_allclose(embed(codec, zoo, rows=rows), whole[rows], atol=1e-6)


def test_without_a_mask_all_numbers_count():
    values, positions = torch.randn(3, 4, 2), torch.tensor([(t, t // 3, t % 3) for t in range(4)])
    codes = Codes(values, CodeShape.sequences("a", positions, mask=torch.ones(4, 2).bool()))
    torch.testing.assert_close(pool(codes, "mean"), values.mean(1))
    expected = torch.cat([values[:, :3].mean(1), values[:, 3]], 1)
    torch.testing.assert_close(pool(codes, "layers"), expected)


def test_vectors_are_their_own_embeddings(make_zoo, run):
    zoo = make_zoo(20)
    codec = FlatCodec(FlatConfig()).fit([(zoo, zoo.rows("train"))], [], run=run)
    codes = codec.encode(torch.from_numpy(zoo.read()), zoo.layout)
    np.testing.assert_array_equal(embed(codec, zoo, rows=np.arange(20)), codes.values)


def test_bad_input_is_refused(fitted, make_zoo):
    codec, zoo = fitted
    with pytest.raises(ShapeMismatch, match="this codec was fitted to"):
        embed(codec, make_zoo(4, name="other"), rows=np.arange(4))
    with pytest.raises(TooFewNetworks, match="0 networks to embed"):
        embed(codec, zoo, rows=np.arange(0))
    file = zoo.shards[0].path
    data = bytearray(file.read_bytes())
    data[data.find(zoo.read([11]).tobytes()) + 5] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptShard):
        embed(codec, Zoo.open(zoo.path), rows=np.arange(40))


def test_a_probe_is_ridge_regression_by_its_normal_equations():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((120, 6)) * [5, 1, 1, 1, 0.2, 1] + 3
    target = features @ [0.1, -1, 0, 2, 0, 0.3] + rng.standard_normal(120)
    target[[3, 70, 110]] = np.nan
    split = np.repeat(["train", "val", "test"], 40)
    probe = ridge_probe(features, target, split_N=split)
    assert probe.num_rows == {"train": 39, "val": 39, "test": 39}
    at = {name: (split == name) & np.isfinite(target) for name in ("train", "val", "test")}
    mean, std = features[at["train"]].mean(0), features[at["train"]].std(0)
    x = (features - mean) / std
    centre = target[at["train"]].mean()

    def r2(penalty: float, name: str) -> float:
        own, wanted = x[at["train"]], target[at["train"]] - centre
        beta = np.linalg.solve(own.T @ own + penalty * np.eye(6), own.T @ wanted)
        theirs = target[at[name]]
        lost = ((theirs - centre - x[at[name]] @ beta) ** 2).sum()
        return 1 - lost / ((theirs - theirs.mean()) ** 2).sum()

    best = max(PENALTIES, key=lambda penalty: r2(penalty, "val"))
    assert probe.penalty == best and 0.5 < probe.r2 < 0.95
    assert probe.r2 == pytest.approx(r2(best, "test"))
    assert probe.val_r2 == pytest.approx(r2(best, "val"))


def command(*words) -> None:
    COMMANDS["embed"].run([*map(str, words)])


def test_the_command_writes_embeddings_and_probes_them(fitted, run, capsys):
    codec, random = fitted
    codec.save(run.path / "codec")
    columns = {name: values for name, values in random.columns.items() if name != "checksum"}
    columns["val_accuracy"] = embed(codec, random, rows=np.arange(40))[:, 0].astype(np.float64)
    path = random.path.parent / "told"
    zoo = write_zoo(path, random.facts, num_rows=40, blocks=[(columns, random.read())])
    command(run.path, path, "--pooling", "layers")
    written = np.load(run.path / "embeddings-told.npz")
    np.testing.assert_array_equal(
        written["embedding"], embed(codec, zoo, rows=np.arange(40), pooling="layers")
    )
    for name in ("network", "epoch", "split", "val_accuracy"):
        np.testing.assert_array_equal(written[name], zoo.columns[name])
    said = capsys.readouterr().out
    size = written["embedding"].shape[1]
    assert f"embeddings-told.npz: 40 x {size} numbers" in said
    assert "ridge probe of val_accuracy: R^2 " in said and "on 8 rows of test networks" in said


def test_the_command_says_where_there_is_nothing_to_probe(fitted, run, capsys):
    codec, zoo = fitted
    codec.save(run.path / "codec")
    out = run.path / "here.npz"
    command(run.path, zoo.path, "--out", out)
    assert "records no val_accuracy" in capsys.readouterr().out
    assert set(np.load(out)) == {"embedding", "network", "epoch", "split"}
    with pytest.raises(DwfError, match="holds no whole codec"):
        command(run.path / "nowhere", zoo.path)
    assert isinstance(Codec.load(run.path / "codec"), NeuronsCodec)
