"""Networks coded in chunks: against the codec without, block by block, and by what memory takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dwf.backbones.autoencoder_config import FoldedAutoencoderConfig, StridedAutoencoderConfig
from dwf.backbones.config import TransformerConfig
from dwf.backbones.vector_autoencoder import LatentNoise, build_autoencoder
from dwf.codecs.autoencoder import AutoencoderCodec
from dwf.codecs.autoencoder import codec as coding
from dwf.codecs.autoencoder import task as learning
from dwf.codecs.autoencoder.numbers import Numbers, chosen
from dwf.codecs.autoencoder.task import Networks
from dwf.codecs.codec import Codec
from dwf.codecs.config import CodecConfig, ConvAutoencoderConfig
from dwf.densities.config import FlowConfig, SolverConfig
from dwf.errors import ConfigError
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import MLPConfig
from dwf.networks.functional import build_network
from dwf.run_folder import RunFolder
from dwf.settings import build
from dwf.training.config import LoopComputeConfig, LoopConfig
from dwf.training.memory import saved_bytes
from dwf.training.task import Share
from dwf.zoo.layout import Layout
from tests.codecs.test_autoencoder import changed

LOOP = LoopConfig(
    steps=6,
    batch_size=4,
    learning_rate=3e-3,
    validate_every=3,
    compute=LoopComputeConfig(device="cpu", threads=1),
)
WHOLE = ConvAutoencoderConfig(backbone=StridedAutoencoderConfig((4, 8, 4), 5, 6), training=LOOP)
CHUNKED = replace(WHOLE, chunk=20)


def fit(zoo, run, config=CHUNKED):
    train, val = ([(zoo, zoo.rows(split))] for split in ("train", "val"))
    return AutoencoderCodec(config).fit(train, val, run=run, seed=0)


def coded(codec, zoo, codes=None):
    weights = torch.from_numpy(zoo.read())
    codes = codes or codec.encode(weights, zoo.layout)
    return codes, codec.decode(codes, zoo.layout)


@pytest.mark.parametrize("chunk", [55, 10**7])
def test_one_chunk_is_the_codec_without(make_zoo, tmp_path, chunk):
    zoo = make_zoo(widths=(9, 4, 3))
    found = []
    for i, config in enumerate((WHOLE, replace(WHOLE, chunk=chunk))):
        codec = fit(zoo, RunFolder(tmp_path / str(i), config), config)
        codes, back = coded(codec, zoo)
        found.append((codes.values, back, *codec.module.state_dict().values()))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("codes", ["vector", "tokens"])
def test_chunks_are_coded_each_by_one_module_that_is_told_which(make_zoo, run, codes):
    """Against the module called by hand on parts of the standardised vector: 55 = 19 + 19 + 17."""
    zoo = make_zoo(widths=(9, 4, 3))
    codec = fit(zoo, run, replace(CHUNKED, codes=codes))
    found, back = coded(codec, zoo)
    assert found.shape == codec.shape and found.shape.size == 3 * 6
    assert found.shape.of_code == ((3, 6) if codes == "tokens" else (18,))
    assert found.shape.sections == (((3, 6),) if codes == "tokens" else None)
    assert torch.equal(found.flatten().view(-1, 3, 6), found.values.view(-1, 3, 6))
    x = functional.pad(codec.numbers.take(torch.from_numpy(zoo.read())), (0, 2))
    for i, part in enumerate(x.split(19, dim=1)):
        number = torch.full((len(x),), i)
        with torch.no_grad():
            latent = codec.module.encode(part, number)
            made = codec.module.decode(latent, number)
        torch.testing.assert_close(found.values.view(-1, 3, 6)[:, i], latent)
        stop = min(19 * (i + 1), 55)
        here = slice(19 * i, stop)
        wanted = made[:, : stop - 19 * i] * codec.numbers.scale_K[here]
        torch.testing.assert_close(back[:, here], wanted + codec.numbers.shift_K[here])


def test_the_place_is_learnt(make_zoo, run):
    zoo = make_zoo(widths=(9, 4, 3))
    codec = fit(zoo, run)
    latent = torch.zeros(3, 6)
    with torch.no_grad():
        made = codec.module.decode(latent, torch.arange(3))
    assert (made[0] - made[1]).abs().max() > 1e-4 and (made[1] - made[2]).abs().max() > 1e-4
    fresh = build_autoencoder(WHOLE.backbone, 19, variational=False, chunks=True).eval()
    at = fresh.encode(torch.ones(2, 19), torch.arange(2))
    torch.testing.assert_close(at[0], at[1])  # nothing is added before it learns


def test_block_by_block_is_the_whole(make_zoo, run, monkeypatch):
    zoo = make_zoo(widths=(9, 4, 3))
    codec = fit(zoo, run)
    codes, back = coded(codec, zoo)
    for numbers in (1, 4 * 19 * 8):
        monkeypatch.setattr(coding, "CODED_NUMBERS", numbers)
        again, back_again = coded(codec, zoo)
        torch.testing.assert_close(again.values, codes.values)
        torch.testing.assert_close(back_again, back)
    assert torch.equal(codec.encode_zoo([(zoo, zoo.rows())]).values, again.values)


def test_a_saved_one_is_the_same(make_zoo, run, tmp_path):
    zoo = make_zoo(widths=(9, 4, 3))
    codec = fit(zoo, run, replace(CHUNKED, codes="tokens"))
    codes, back = coded(codec, zoo)
    codec.save(tmp_path / "codec")
    again, back_again = coded(Codec.load(tmp_path / "codec"), zoo)
    assert torch.equal(again.values, codes.values) and torch.equal(back_again, back)
    assert again.shape == codes.shape


@pytest.mark.parametrize("held", [True, False])
def test_examples_are_the_chunks_of_all_networks(plant_zoo, tmp_path, monkeypatch, held):
    """From memory or from the disk: the standardised vector, cut; logarithms too."""
    if not held:
        monkeypatch.setattr(learning, "MOST_HELD", 0)
    zoo = plant_zoo(batchnorm=True)
    weights = np.abs(zoo.read())
    config = replace(CHUNKED, buffers=True)
    zoo = changed(zoo, tmp_path / "positive", weights)
    rows = zoo.rows("train")
    numbers, _ = Numbers.fit([(zoo, rows)], chosen(zoo.layout, config), config=config)
    networks = Networks([(zoo, rows[:5]), (zoo, rows[5:])], numbers, chunks=7)
    whole = numbers.take(torch.from_numpy(zoo.read(rows)))
    size = networks.size
    assert size == -(-numbers.size // 7) and networks.count == 7 * len(rows)
    cut = functional.pad(whole, (0, 7 * size - numbers.size)).view(-1, size)
    assert torch.equal(torch.cat(list(networks.blocks())), cut)
    some = np.array([3, 40, 7, 3])
    assert torch.equal(networks.take(some), cut[some])
    assert networks.chunk_of(some).tolist() == [3, 5, 0, 3]
    said = f"rows {rows[0]}, {rows[1]} of {zoo.path}; rows {rows[5]} of {zoo.path}"
    assert networks.describe(some) == said


# --- memory -------------------------------------------------------------------------------------


def planned(config, layout, micro=4):
    module = AutoencoderCodec.planned_module(config, [layout])
    kept = AutoencoderCodec.activation_bytes(config, module, share=Share(batch_size=micro))
    return sum(p.numel() for p in module.parameters()), kept


def test_what_the_backward_keeps_is_counted_by_hand():
    """Of a linear layer its input, of a ReLU what it returns, which the next takes too."""
    x, layer = torch.ones(5, 7), torch.nn.Linear(7, 3)
    other = torch.nn.Linear(3, 2)
    found = saved_bytes(
        lambda: other(layer(x).relu()), but=[*layer.parameters(), *other.parameters()]
    )
    assert found == 4 * (5 * 7 + 5 * 3)


@pytest.mark.parametrize(
    "config", [WHOLE, replace(WHOLE, backbone=FoldedAutoencoderConfig(3, (2, 2), (2, 8)))]
)
def test_the_plan_of_activations_is_what_a_step_keeps(make_zoo, run, config):
    zoo = make_zoo(widths=(9, 4, 3))
    config = replace(config, chunk=28)
    module = fit(zoo, run, config).module.train()
    noise = LatentNoise(
        torch.randn(4, module.num_latents), torch.zeros(4, module.num_latents), torch.ones(())
    )
    x, number = torch.randn(4, module.numbers), torch.zeros(4, dtype=torch.int64)
    kept = saved_bytes(lambda: module(x, noise, number), but=module.parameters())
    assert planned(config, zoo.layout)[1] == kept


def test_memory_follows_the_chunk_and_not_the_network(make_zoo):
    """Networks of 10^4 and 10^6 weights, none of which is made."""
    layouts = []
    for hidden in (125, 12500):
        with torch.device("meta"):
            layouts.append(Layout.of(build_network(MLPConfig((69, hidden, 10)))))
    small, large = (layout.size for layout in layouts)
    assert small > 10_000 and large > 999_999
    backbone = StridedAutoencoderConfig(latent=32)
    by_chunk = {
        chunk: [planned(replace(WHOLE, backbone=backbone, chunk=chunk), one) for one in layouts]
        for chunk in (1024, 2048)
    }
    for parts in by_chunk.values():
        assert np.allclose(*parts, rtol=0.05)  # chunks of like size are not quite of 1,024
    kept = [parts[1][1] for parts in by_chunk.values()]
    assert kept[1] / kept[0] == pytest.approx(2, rel=0.05)
    whole = planned(replace(WHOLE, backbone=backbone), layouts[1])
    assert whole[0] > 10 * by_chunk[2048][1][0] and whole[1] > 400 * by_chunk[2048][1][1]


# --- with a density, and settings ---------------------------------------------------------------


def test_a_transformer_learns_tokens_of_chunks(make_zoo, tmp_path):
    make_zoo(20, widths=(64, 8, 10))
    density = FlowConfig(
        backbone=TransformerConfig(width=8, heads=2, depth=1, positions=True),
        training=LOOP,
        solver=SolverConfig(method="euler", steps=3),
    )
    codec = replace(CHUNKED, codes="tokens", chunk=100)
    config = GeneratorConfig("small", codec=codec, density=density, gate=None)
    assert fit_generator(config, tmp_path, name="g").density.shape.num_tokens == 7
    drawn = sample_networks(SampleConfig("g", count=2), tmp_path, name="drawn")
    assert drawn.read().shape == (2, drawn.layout.size)


def test_the_shape_is_known_without_torch():
    mlp = 9 * 4 + 4 + 4 * 3 + 3
    assert CHUNKED.shape_of_mlp((9, 4, 3), 5).size == 18 and CHUNKED.chunk_size(mlp) == 19
    tokens = replace(CHUNKED, codes="tokens")
    assert tokens.makes_tokens and tokens.shape_of_mlp((9, 4, 3), 5).sections == ((3, 6),)
    assert not CHUNKED.makes_tokens and WHOLE.chunks(mlp) == 1


def test_tokens_without_chunks_are_refused():
    settings = {"kind": "conv_autoencoder", "codes": "tokens"}
    with pytest.raises(ConfigError, match="codes = 'tokens' has a token for each chunk, and chunk"):
        build(CodecConfig, settings, source="own.yaml")
