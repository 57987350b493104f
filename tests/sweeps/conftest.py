"""A small way: 24 digits MLPs, and a flow on their PCA scores."""

from pathlib import Path

import pytest
import yaml

from dwf.settings import build, to_dict
from dwf.sweeps.config import SweepConfig

STAGES = {
    "zoo": {
        "network": {"kind": "mlp", "widths": [64, 8, 10]},
        "data": {"kind": "digits", "validation": 0.2},
        "count": 24,
        "recipe": {"epochs": 4, "batch_size": 64, "learning_rate": 0.01},
        "split": {"val": 0.15, "test": 0.15},
        "shard": 12,
    },
    "align": {"reference": "iterated_mean", "num_pairs": 4},
    "generator": {
        "codec": {"kind": "pca"},
        "density": {
            "kind": "flow",
            "backbone": {"kind": "residual_mlp", "width": 16, "depth": 1},
            "training": {
                "steps": 60,
                "batch_size": 8,
                "validate_every": 20,
                "compute": {"threads": 1},
            },
            "solver": {"method": "heun2", "steps": 4},
        },
    },
    "sample": {"count": 10},
    "evaluate": {"count": 10, "noise": [0.1], "averages": [2]},
}
WIDTH = "generator.density.backbone.width"


@pytest.fixture(scope="session")
def way(tmp_path_factory) -> dict[str, str]:
    """Stage -> settings file."""
    folder = tmp_path_factory.mktemp("way")
    for stage, data in STAGES.items():
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(data))
    return {stage: str(folder / f"{stage}.yaml") for stage in STAGES}


@pytest.fixture(scope="session")
def make(way):
    """Build a sweep's settings: `make(space, search="grid", ...) -> SweepConfig`."""

    def build_config(space: dict, **settings) -> SweepConfig:
        return build(SweepConfig, way | {"space": space} | settings, source="test.yaml")

    return build_config


def write_sweep(config: SweepConfig, path: Path) -> Path:
    """Write a sweep's settings as a file."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))
    return path
