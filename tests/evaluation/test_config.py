"""Settings of reports: every shipped file is understood, and values out of range are refused."""

from pathlib import Path

import pytest

from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.settings import build, parse

FILES = sorted((Path(__file__).parents[2] / "configs" / "evaluate").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_understood(path):
    argv = ["--config", str(path), "--zoo", "z", "--samples", "a", "b"]
    config = parse(EvaluateConfig, "", argv=argv).config
    assert (config.zoo, config.samples) == ("z", ("a", "b"))
    assert config.averages == (2, 4, 16, "all")


@pytest.mark.parametrize(
    ("key", "value"),
    [("noise", [0.0]), ("noise", [-1]), ("averages", [0]), ("averages", ["each"]), ("count", 1)],
)
def test_values_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=rf"f.yaml: {key}"):
        build(EvaluateConfig, {"zoo": "z", key: value}, source="f.yaml")
