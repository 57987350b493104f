"""Networks of an architecture that a generator did not learn from."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dwf.backbones.config import TokenAutoencoderConfig
from dwf.codecs.config import SaneComputeConfig, SaneConfig, SaneLoopConfig, SaneTokensConfig
from dwf.codecs.tokens import Geometry, Tiling
from dwf.datasets.config import DataConfig
from dwf.densities.config import KdeConfig
from dwf.errors import ConfigError, RunConflict, ShapeMismatch
from dwf.evaluation.frames import refuse_other_frame
from dwf.generators.config import (
    BootstrapConfig,
    GeneratorConfig,
    SampleConfig,
    SubsampleConfig,
)
from dwf.generators.generator import Generator
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.networks.config import CifarResNetConfig, CNNConfig, MLPConfig
from dwf.networks.functional import build_network
from dwf.settings import to_dict
from dwf.transfer.arms import open_pool
from dwf.transfer.config import FinetuneConfig
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo, split_networks, write_zoo
from launch.sample import main
from tests.zoos import facts_of

KNOWN = CNNConfig((3, 4), input=(1, 8, 8), head="average", norm="batch", paddings=1)
NEW = replace(KNOWN, channels=(5, 7, 8))
SANE = SaneConfig(
    tokens=SaneTokensConfig(10, norms=False),
    backbone=TokenAutoencoderConfig(width=16, heads=2, depth=1, latent=6),
    training=SaneLoopConfig(
        steps=4, batch_size=8, compute=SaneComputeConfig(device="cpu", workers=0)
    ),
    views=("canonical", "canonical"),
    window=20,
    halo=4,
    val_windows=8,
)
TINY = KdeConfig(bandwidth=1e-6)


@pytest.fixture(scope="module")
def made_root(tmp_path_factory) -> Path:
    """Generators of twelve small CNNs: `tiny` and `wide`, by their bandwidth, and `joint`."""
    root = tmp_path_factory.mktemp("architecture")
    (layout,), rng = layouts(KNOWN), np.random.default_rng(0)
    weights_ND = rng.random((12, layout.size), np.float32)  # so are the variances above 0
    columns = {"network": np.arange(12), "epoch": np.ones(12, np.int32)}
    columns |= {"split": split_networks(12, 0.2, test=0.2, seed=0)}
    columns |= {"batchnorm": np.full(12, "trained")}
    facts = facts_of(layout, KNOWN)
    write_zoo(root / "zoos" / "small", facts, num_rows=12, blocks=[(columns, weights_ND)])
    densities = {"tiny": TINY, "wide": KdeConfig(), "joint": KdeConfig(mode="joint")}
    for name, density in densities.items():
        config = GeneratorConfig("small", codec=SANE, density=density, gate=None)
        fit_generator(config, root, name=name)
    return root


@pytest.fixture
def root(made_root, tmp_path) -> Path:
    """The same generators, for a test to draw from."""
    shutil.copytree(made_root, tmp_path, dirs_exist_ok=True)
    return tmp_path


def draw(root: Path, name: str, generator: str = "wide", **how) -> Zoo:
    given = {"count": 2, "network": NEW, "batchnorm_images": 50} | how
    return sample_networks(SampleConfig(generator, **given), root, name=name)


def layouts(*networks):
    return [Layout.of(build_network(network)) for network in networks]


def tiling_of(known, new, **how) -> Tiling:
    settings = SaneTokensConfig(10, **how)
    return Tiling.of(*(Geometry.of(layout, settings) for layout in layouts(known, new)))


def test_an_architecture_that_is_known_is_each_layer_once():
    tiling = tiling_of(KNOWN, KNOWN)
    assert all(new == known for new, known in tiling.names.items())
    assert torch.equal(tiling.tokens_S, torch.arange(tiling.known.num_tokens))
    weights_ND = torch.randn(2, tiling.new.layout.size)
    laid_ND = torch.zeros_like(weights_ND)
    tiling.lay(tiling.known.tokenise(weights_ND), laid_ND)
    for start, stop in tiling.new.spans:
        assert torch.equal(laid_ND[:, start:stop], weights_ND[:, start:stop])


@pytest.mark.parametrize("packing", ["rows", "dense"])
def test_a_wider_layer_is_tiled_with_copies(packing):
    """Of copies that are all equal, a number stands where its index is, counted round."""
    known, new = MLPConfig((6, 4, 3)), MLPConfig((6, 9, 5))
    tiling = tiling_of(known, new, packing=packing)
    weights_1D = torch.randn(1, tiling.known.layout.size)
    tokens = tiling.known.tokenise(weights_1D)[:, tiling.tokens_S]
    laid_1D = torch.full((1, tiling.new.layout.size), torch.nan)
    tiling.lay(tokens, laid_1D)
    given, found = tiling.known.layout.unflatten(weights_1D), tiling.new.layout.unflatten(laid_1D)
    for name, whole in found.items():
        indices = np.ix_(
            *(np.arange(n) % m for n, m in zip(whole.shape[1:], given[name].shape[1:], strict=True))
        )
        assert torch.equal(whole[0], given[name][0][indices])
    assert len(tiling.copies) == 3 + 2 * 3  # 9 of 4 rows; 5 of 3 rows and 9 of 4 columns


def test_a_narrower_layer_is_cut():
    tiling = tiling_of(MLPConfig((6, 4, 3)), MLPConfig((6, 2, 3)))
    weights_1D = torch.randn(1, tiling.known.layout.size)
    laid_1D = torch.full((1, tiling.new.layout.size), torch.nan)
    tiling.lay(tiling.known.tokenise(weights_1D)[:, tiling.tokens_S], laid_1D)
    given, found = tiling.known.layout.unflatten(weights_1D), tiling.new.layout.unflatten(laid_1D)
    assert torch.equal(found["layers.0.weight"], given["layers.0.weight"][:, :2])
    assert torch.equal(found["layers.1.weight"], given["layers.1.weight"][..., :2])
    assert torch.equal(found["layers.1.bias"], given["layers.1.bias"])


def test_a_deeper_resnet_takes_layers_of_its_stage_in_their_order():
    tiling = tiling_of(CifarResNetConfig(14, width=4), CifarResNetConfig(26, width=4), norms=False)
    names = tiling.names
    assert names["conv1.weight"] == "conv1.weight" and names["linear.weight"] == "linear.weight"
    for new, known in names.items():
        assert new.partition(".")[0] == known.partition(".")[0]
        assert ("shortcut" in new) == ("shortcut" in known)
    convolutions = [
        i for i, layer in zip(tiling.mapped, tiling.new.layers, strict=True) if "conv" in layer.name
    ]
    assert convolutions == sorted(convolutions)
    assert set(tiling.mapped) == set(range(len(tiling.known.layers)))
    assert len(tiling.copies) == len(tiling.new.layers)  # none is wider


def test_samples_are_decoded_anchors_of_the_layers_they_are_mapped_to(root):
    """With next to no noise, each token is that of some anchor, and so are the decoded layers."""
    generator, zoo = Generator.load(root / "runs" / "tiny"), draw(root, "s", "tiny", count=3)
    (layout,) = layouts(NEW)
    assert zoo.layout == layout and len(zoo) == 3
    told = zoo.facts.sampled.architecture
    assert told["layers"]["linears.0.weight"] == "linears.0.weight"
    assert told["layers"]["convs.2.weight"] == "convs.1.weight"
    assert zoo.facts.network == NEW and zoo.facts.data == generator.subject.data
    tiling = generator.codec.tiling(generator.layout, layout)
    tokens_S, anchors_ATL = tiling.tokens_S, generator.density.values_NTC
    values_NSL = generator.density.sample_tokens(tokens_S, 3, seed=0)
    apart_NSA = (values_NSL[:, :, None] - anchors_ATL[:, tokens_S].transpose(0, 1)).norm(dim=3)
    assert apart_NSA.amin(2).max() < 1e-4
    assert len(set(apart_NSA.argmin(2)[0].tolist())) > 1  # each token of an anchor of its own
    # By hand: the last layer's tokens, in the last window with all before them, and its scaling.
    codec, known = generator.codec, tiling.known
    window_S = tokens_S[-codec.config.window :]
    with torch.no_grad():
        positions = known.positions_T3[window_S].expand(3, -1, -1)
        decoded = codec.module.decode(values_NSL[:, -len(window_S) :], positions)
    scaling, head = codec._scaling(generator.layout.digest), known.layers[-1]
    last = decoded[:, -head.tokens :] * scaling.scale_L[-1] + scaling.shift_L[-1]
    state = zoo.layout.unflatten(torch.from_numpy(zoo.read()))
    rows = last.reshape(3, head.rows, -1)[..., : head.inner]
    torch.testing.assert_close(state["linears.0.weight"][..., head.inner :], rows)
    assert all(bool((state[n] == 1).all()) for n in state if "norm" in n and n.endswith("weight"))
    assert set(zoo.columns["batchnorm"].tolist()) == {"recalibrated"}


def test_a_known_architecture_comes_out_as_by_the_usual_way(made_root):
    """Tokens drawn one by one, of each layer once: the same draws, and the same networks."""
    generator = Generator.load(made_root / "runs" / "wide")
    values = generator.density.sample(3, 5).values
    every = torch.arange(values.shape[1])
    assert torch.equal(generator.density.sample_tokens(every, 3, seed=5), values)
    tiling = generator.codec.tiling(generator.layout, generator.layout)
    template_D = generator.codec.template_of(generator.layout)
    weights_ND = generator.codec.decode_tiles(values, tiling, template_D=template_D)
    assert torch.equal(weights_ND, generator.sample(3, 5))


def test_sample_i_does_not_depend_on_their_number(root):
    few, more = draw(root, "few", count=2), draw(root, "more", count=5)
    np.testing.assert_allclose(few.read(), more.read()[:2], atol=1e-5)
    assert draw(root, "few", count=2).fingerprint == few.fingerprint  # finished already


def test_a_selection_and_a_new_head(root):
    zoo = draw(root, "s", selection=SubsampleConfig(draws=2), classes=4)
    assert zoo.facts.network == replace(NEW, classes=4)
    assert zoo.facts.sampled.head["classes"] == 4 and zoo.facts.sampled.selection["drawn"] == 4


def test_the_command_takes_the_block_of_a_settings_file(root):
    file, network = root / "net.yaml", to_dict(replace(KNOWN, channels=(6, 6)))
    file.write_text(yaml.safe_dump({"network": network, "count": 9}))
    words = ["--generator", "wide", "--root", str(root), "--count", "2", "--name", "s"]
    main([*words, "--network", str(file), "--dry-run"])
    assert not (root / "zoos" / "s").exists()
    main([*words, "--network", str(file)])
    zoo = Zoo.open(root / "zoos" / "s")
    assert len(zoo) == 2 and zoo.facts.network.channels == (6, 6)
    main([*words, f"--network={file}"])  # finished already
    main(["--name", "s", "--root", str(root), "--resume"])
    with pytest.raises(RunConflict, match="network"):
        main(words)
    file.write_text(yaml.safe_dump(network))
    with pytest.raises(ConfigError, match="the file has no `network:`, it has activation"):
        main([*words, "--network", str(file)])


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (replace(NEW, kernels=5, paddings=2), r"convs.0.weight of shape \[5, 1, 5, 5\]"),
        (replace(NEW, classes=4), "4 logits, those of wide have 10"),
        (replace(NEW, input=(3, 8, 8)), "network"),
    ],
)
def test_networks_that_do_not_fit_are_refused(root, network, said):
    with pytest.raises(ConfigError, match=said):
        draw(root, "s", network=network)
    assert not (root / "zoos" / "s").exists()


def test_joint_anchors_are_refused(root):
    with pytest.raises(ConfigError, match="the density kde of mode joint draws whole codes"):
        draw(root, "s", "joint")


def test_they_are_an_initialisation_beside_a_zoo_of_their_architecture(root):
    """Fine-tuning takes them; a zoo of another architecture, or a report on novelty, does not."""
    (layout,) = layouts(NEW)
    zoo = draw(root, "s")
    columns = {name: zoo.columns[name] for name in ("network", "epoch", "batchnorm")}
    block = (columns | {"split": np.full(2, "train")}, zoo.read())
    write_zoo(root / "zoos" / "new", facts_of(layout, NEW), num_rows=2, blocks=[block])
    how = {"data": DataConfig("digits"), "samples": ("s",), "epochs": (0,)}
    pool = open_pool(FinetuneConfig("new", **how), root)
    assert [len(each) for each in pool.samples] == [2]
    with pytest.raises(ShapeMismatch, match="train a zoo of their architecture from scratch"):
        open_pool(FinetuneConfig("small", **how), root)
    with pytest.raises(ConfigError, match="networks of another architecture, so no zoo tells"):
        refuse_other_frame(pool.zoo, pool.samples)


def test_other_codecs_are_refused(make_zoo, tmp_path, gaussian_on_weights):
    make_zoo()
    fit_generator(gaussian_on_weights, tmp_path, name="g")
    network = MLPConfig((64, 20, 10))
    with pytest.raises(ConfigError, match=r"codec\.kind = 'flat' codes only networks"):
        sample_networks(SampleConfig("g", 2, network=network), tmp_path, name="s")


def test_bootstrap_is_refused():
    with pytest.raises(ValueError, match="choose subsample, or leave out network"):
        SampleConfig("g", 5, network=NEW, selection=BootstrapConfig())
