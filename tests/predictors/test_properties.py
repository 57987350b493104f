"""Properties: the same measure in all zoos, and what stands in for a score that a zoo lacks.

Measured columns are written here by hand, so each value that is read is known.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError
from dwf.measurements.config import AccuracyConfig, CalibrationConfig, FgsmConfig
from dwf.measurements.folder import Column, Measured
from dwf.predictors.prediction import predict_zoo
from dwf.predictors.properties import Columns, read_properties
from dwf.predictors.stage import fit_predictors
from dwf.settings import to_dict
from dwf.zoo.store import Zoo
from tests.predictors.kinds import experiment, write_made_zoo

DIGITS = DataConfig("digits")
IN_TEST = 360
"""Test images of the digits."""


def write_measured(root: Path, zoo: Zoo, *, column: str, of, images: int, values) -> None:
    """Write one measured column of test images, as a measurement leaves it."""
    folder = zoo.path / "measured" / column
    told = Measured(
        zoo=zoo.name,
        fingerprint=zoo.fingerprint,
        rows=len(zoo),
        block=len(zoo),
        device="cpu",
        seed=0,
        data=None,
        image_split=None,
        measures=to_dict({"m": of}),
        columns={column: Column("m", "test", images=images, is_share=of.kind != "calibration")},
    )
    folder.mkdir(parents=True)
    told.write(folder)
    keys = {"row": np.arange(len(zoo)), "checksum": zoo.columns["checksum"]}
    np.savez(folder / "block-00000.npz", **keys, **{column: values})


def three(root: Path, *, of, images, column="test_m_accuracy") -> list[Zoo]:
    """Three zoos, of digits, of iris, and of digits, each with a column measured by `of`."""
    zoos = []
    for name, data, one, count in zip("abc", (DIGITS, "iris", DIGITS), of, images, strict=True):
        data = DataConfig(data) if isinstance(data, str) else data
        zoos.append(write_made_zoo(root, name, data=data))
        values = np.full(120, 0.5)
        write_measured(root, zoos[-1], column=column, of=one, images=count, values=values)
    return zoos


def test_a_column_measured_by_other_settings_is_another_column(tmp_path):
    fgsm = FgsmConfig(epsilon=0.1, images=50)
    of = [fgsm, replace(fgsm, images=20), replace(fgsm, epsilon=0.2)]
    zoos = three(tmp_path, of=of, images=(50, 20, 50))
    (found,) = read_properties(zoos[:2], ["test_m_accuracy"], root=tmp_path)
    assert found.images == 50
    with pytest.raises(ConfigError, match=r"zoos/a is measured by .*0\.1.* of .*zoos/c by .*0\.2"):
        read_properties(zoos, ["test_m_accuracy"], root=tmp_path)


def test_zoos_of_the_same_data_have_as_many_images_whichever_comes_first(tmp_path):
    zoos = three(tmp_path, of=[FgsmConfig()] * 3, images=(50, 20, 30))
    with pytest.raises(ConfigError, match=r"zoos/c is of 30 images and that of .*zoos/a of 50"):
        read_properties(zoos[1:] + zoos[:1], ["test_m_accuracy"], root=tmp_path)


def test_so_have_columns_that_are_no_shares(tmp_path):
    of = [CalibrationConfig()] * 3
    zoos = three(tmp_path, of=of, images=(50, 20, 30), column="test_m_error")
    with pytest.raises(ConfigError, match=r"zoos/a is of 50 images and that of .*zoos/c of 30"):
        read_properties(zoos, ["test_m_error"], root=tmp_path)


def test_a_gap_that_was_measured_is_not_the_one_that_the_zoo_tells(tmp_path):
    zoo = write_made_zoo(tmp_path)
    write_measured(
        tmp_path,
        zoo,
        column="generalisation_gap",
        of=CalibrationConfig(),
        images=9,
        values=np.ones(120),
    )
    gap = zoo.columns["train_accuracy"].astype(float) - zoo.columns["test_accuracy"]
    np.testing.assert_array_equal(Columns(zoo, tmp_path).read("generalisation_gap"), gap)


def test_measured_accuracy_on_all_test_images_stands_in_for_what_samples_lack(tmp_path):
    zoo = write_made_zoo(tmp_path, data=DIGITS)
    config = experiment(properties=["test_accuracy"])
    fit_predictors(config, tmp_path, name="run")
    drawn = write_made_zoo(tmp_path, "drawn", data=DIGITS, columns={"test_accuracy": None})
    true_N = np.linspace(0.1, 0.9, 120)
    some = {"of": AccuracyConfig(parts=("test",)), "values": true_N}
    write_measured(tmp_path, drawn, column="test_few_accuracy", images=50, **some)
    assert not predict_zoo(config, tmp_path, name="run", zoo="drawn").scores
    write_measured(tmp_path, drawn, column="test_m_accuracy", images=IN_TEST, **some)
    (score,) = predict_zoo(config, tmp_path, name="run", zoo="drawn").scores
    assert score.true_mean == pytest.approx(0.5) and score.networks == 120
    (found,) = read_properties([zoo, drawn], ["test_accuracy"], root=tmp_path)
    assert found.images == IN_TEST
    np.testing.assert_array_equal(found.values[1], true_N)
