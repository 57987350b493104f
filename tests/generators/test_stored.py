"""Codes on a run's disk: coded once, found again by a run that goes on, gone when it is over."""

from dataclasses import replace

import pytest
import torch

from dwf.codecs import codes as codes_module
from dwf.codecs.config import FlatConfig
from dwf.codecs.flat import FlatCodec
from dwf.densities.flow import Flow
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
