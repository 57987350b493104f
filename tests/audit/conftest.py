"""A small audit: Gaussian, kernel density, a flow and a row that fails, on 24 digits MLPs."""

from pathlib import Path

import pytest
import yaml

from dwf.audit.config import AuditConfig
from dwf.evaluation.report.figures import STYLE
from dwf.settings import build
from tests.sweeps.conftest import STAGES

FLAT = {"codec": {"kind": "flat"}}
GENERATORS = {
    "flow": STAGES["generator"],
    "gaussian": FLAT | {"density": {"kind": "gaussian"}},
    "kde": FLAT | {"density": {"kind": "kde", "mode": "joint"}},
}


@pytest.fixture(autouse=True)
def few_figures(monkeypatch):
    """The audit's own figure, of few pixels; reports of zoos without any."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 20)
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Stage, or generator -> settings file."""
    told = {name: STAGES[name] for name in ("zoo", "align", "sample", "evaluate")} | GENERATORS
    for name, data in told.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    return {name: str(tmp_path / f"{name}.yaml") for name in told}


@pytest.fixture
def make(files):
    """Build an audit's settings: `make(row={...}, ...) -> AuditConfig`; a row may be a name."""

    def made(budget_minutes: float = 1.0, **rows: dict | str) -> AuditConfig:
        told = {
            name: {"generator": files[row]} if isinstance(row, str) else row
            for name, row in rows.items()
        }
        stages = {name: files[name] for name in ("align", "sample", "evaluate")}
        return build(
            AuditConfig,
            {"zoos": [files["zoo"]], "rows": told, "budget_minutes": budget_minutes} | stages,
            source="test.yaml",
        )

    return made


def folder_of(root: Path, name: str) -> Path:
    return root / "audits" / name
