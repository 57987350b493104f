"""Codes on a run's disk: coded once, found again by a run that goes on, gone when it is over.

Against the same fit of codes in memory.
"""

from dataclasses import replace

import pytest
import torch

from dwf.codecs import codes as codes_module
from dwf.codecs.config import FlatConfig
from dwf.codecs.flat import FlatCodec
from dwf.densities.config import GaussianConfig, KdeConfig
from dwf.densities.flow import Flow
from dwf.files import read_json
from dwf.generators.generator import Generator
from dwf.generators.stage import fit_generator, plan


@pytest.fixture
def config(flow_on_pca):
    training = replace(flow_on_pca.density.training, steps=4, validate_every=2)
    return replace(
        flow_on_pca, codec=FlatConfig(), density=replace(flow_on_pca.density, training=training)
    )


def test_a_run_that_goes_on_codes_nothing_again(make_zoo, tmp_path, config, monkeypatch):
    make_zoo(widths=(64, 4, 10))
    held = fit_generator(config, tmp_path, name="held")
    assert "lie in the run's folder" not in plan(config, tmp_path, name="stored")
    monkeypatch.setattr(codes_module, "MOST_HELD", 0)
    assert "codes, up to 0.0 GB, lie in the run's folder codes/" in plan(
        config, tmp_path, name="stored"
    )
    folder = tmp_path / "runs" / "stored" / "codes"

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Flow, "fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_generator(config, tmp_path, name="stored")
    assert sorted(file.name for file in folder.iterdir()) == ["train.npy", "val.npy"]
    (folder / "train.npy.partial-ab").touch()  # of an attempt that was killed
    monkeypatch.setattr(FlatCodec, "encode_zoo", interrupted)
    swept = []
    fit = Flow.fit

    def noted(self, train_codes, *arguments, **more):
        swept.extend(file.name for file in folder.iterdir())
        assert train_codes.is_mapped
        return fit(self, train_codes, *arguments, **more)

    monkeypatch.setattr(Flow, "fit", noted)
    stored = fit_generator(config, tmp_path, name="stored")
    assert sorted(swept) == ["train.npy", "val.npy"] and not folder.exists()
    assert torch.equal(stored.sample(3, seed=0), held.sample(3, seed=0))


def test_codes_are_of_the_codec_that_is_there(make_zoo, tmp_path, config, monkeypatch):
    """A codec that is fitted anew does not meet the codes of one before it."""
    make_zoo(widths=(64, 4, 10))
    monkeypatch.setattr(codes_module, "MOST_HELD", 0)
    run = tmp_path / "runs" / "again"
    (run / "codes").mkdir(parents=True)
    (run / "codes" / "train.npy").write_bytes(b"of another codec")
    fitted = fit_generator(config, tmp_path, name="again")
    assert fitted.sample(2, seed=0).isfinite().all()


KINDS = {
    "gaussian": (GaussianConfig(), "the Gaussian's directions, up to 0.0 GB, lie in density/"),
    "kde": (KdeConfig(mode="joint"), "the anchors, up to 0.0 GB, lie in density/anchors.npy"),
    "flow": (None, "the noise of density.source = 'fixed', up to 0.0 GB, lies beside them"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_density_draws_from_its_own_folder_what_it_draws_of_codes_in_memory(
    make_zoo, tmp_path, config, monkeypatch, kind
):
    """The codes are gone then, the folder is moved, and the likelihood was measured on the way."""
    make_zoo(20, widths=(64, 4, 10))
    density, told = KINDS[kind]
    density = density or replace(config.density, source="fixed")
    config = replace(config, density=density, likelihood=5)
    held = fit_generator(config, tmp_path, name="held")
    assert told not in plan(config, tmp_path, name="stored")
    monkeypatch.setattr(codes_module, "MOST_HELD", 0)
    assert told in plan(config, tmp_path, name="stored")
    fit_generator(config, tmp_path, name="stored")
    runs = tmp_path / "runs"
    assert not (runs / "stored" / "codes").exists()
    (runs / "stored").rename(tmp_path / "moved")
    wanted, found = (
        read_json(folder / "done.json")["density"]["likelihood"]
        for folder in (runs / "held", tmp_path / "moved")
    )
    drawn, loaded = held.sample(3, seed=0), Generator.load(tmp_path / "moved")
    if kind == "gaussian":  # up to rounding; off the space that is spanned there is no likelihood
        torch.testing.assert_close(loaded.sample(3, seed=0), drawn, rtol=0, atol=2e-6)
        nats = found["train"].pop("nats_per_number"), wanted["train"].pop("nats_per_number")
        assert nats[0] == pytest.approx(nats[1], rel=1e-6)
        assert found["train"].pop("std") == pytest.approx(wanted["train"].pop("std"), rel=1e-4)
    else:
        assert torch.equal(loaded.sample(3, seed=0), drawn)
    assert found == wanted


def test_a_gaussian_that_memory_is_too_small_for_is_warned_of(
    make_zoo, tmp_path, config, monkeypatch
):
    make_zoo(widths=(64, 4, 10))
    monkeypatch.setattr(codes_module, "MOST_HELD", 0)
    monkeypatch.setattr("dwf.densities.config.machine_bytes", lambda: 1000)
    config = replace(config, density=GaussianConfig())
    told = "of this machine it is refused: set density.covariance diagonal"
    assert told in plan(config, tmp_path, name="g")
