"""A whole audit: rows fail alone, a killed one ends with the same bytes, others' rows join.

What each row is held to is what the stages make one by one.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from dwf.audit.row import Audit, Unit
from dwf.audit.stage import audit_generators, plan, work
from dwf.audit.table import AuditReport
from dwf.errors import ConfigError, Preempted, RunConflict, WorkFailed
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.stages import run_here
from dwf.zoo.store import Zoo
from tests.audit.conftest import folder_of

STEPS = {"density": 40}


def stop_after_one(units) -> None:
    """Run the units of a zoo, and one row: a launch that is killed then."""
    if units.unit_name == "rows":
        units.unit(units.folder, 0)
        raise Preempted("killed")
    run_here(units)


def flow(files) -> dict:
    """A row that is not timed, so that its bytes are known."""
    published = {"accuracy": 0.99, "originals": 0.99, "networks": "MLPs", "source": "nobody"}
    return {"generator": files["flow"], "steps": STEPS, "published": published}


def test_a_killed_audit_ends_with_the_same_bytes_and_rows_are_what_the_stages_make(
    make, files, tmp_path
):
    config = make(flow=flow(files), gaussian="gaussian")
    whole = audit_generators(config, tmp_path, name="whole")

    with pytest.raises(Preempted):
        audit_generators(config, tmp_path, name="again", run=stop_after_one)
    assert work(tmp_path, name="again").finished(folder_of(tmp_path, "again")) == {0}
    audit_generators(config, tmp_path, name="again")
    for file in ("audit.json", "audit.md", "audit.png"):
        both = [(folder_of(tmp_path, name) / file).read_bytes() for name in ("whole", "again")]
        assert both[0].replace(b"whole", b"again") == both[1], file

    root = folder_of(tmp_path, "whole") / "zoo"
    line = next(one for one in whole.rows if one.one.title == "flow")
    assert (line.steps, line.full_steps) == (STEPS, {"density": 60})
    assert line.verdict == "under budget" and "zoo, under budget: flow." in " ".join(whole.headline)
    recorded = yaml.safe_load((root / "runs" / "flow" / "config.yaml").read_text())
    assert recorded["density"]["training"]["steps"] == 40 and recorded["zoo"] == "zoo-aligned"
    audit, unit = Audit.read(folder_of(tmp_path, "whole")), Unit("zoo", "gaussian")
    alone = tmp_path / "alone"
    (alone / "zoos").mkdir(parents=True)
    for name in ("zoo", "zoo-aligned"):
        (alone / "zoos" / name).symlink_to(root / "zoos" / name)
    fit_generator(audit.generator(unit), alone, name="gaussian")
    drawn = sample_networks(audit.sample(unit), alone, name="gaussian")
    assert np.array_equal(drawn.read(), Zoo.open(root / "zoos" / "gaussian").read())

    assert audit_generators(config, tmp_path, name="whole") == whole, "finished already"
    assert "2 of them are over and kept" in plan(config, tmp_path, name="whole")
    titles = {line.one.title for line in whole.lines}
    assert {"originals (training)", "interpolation of two", "nearest originals of flow"} <= titles
    with pytest.raises(RunConflict, match="budget_minutes"):
        audit_generators(make(9, flow=flow(files), gaussian="gaussian"), tmp_path, name="whole")


def test_a_row_that_fails_says_why_and_the_others_finish(make, files, tmp_path):
    large = yaml.safe_load(Path(files["flow"]).read_text())
    large["density"]["training"]["batch_size"] = 512
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(large))
    row = {"generator": str(tmp_path / "large.yaml"), "steps": STEPS}
    config = make(large=row, gaussian="gaussian", lost={"samples": str(tmp_path / "nowhere")})
    told = r"2 of the rows of .*audits/a failed; .*audit.html is on the others"
    with pytest.raises(WorkFailed, match=told) as error:
        audit_generators(config, tmp_path, name="a")
    assert "large (zoo): " in str(error.value) and "lost (zoo): " in str(error.value)
    made = AuditReport.load(folder_of(tmp_path, "a"))
    assert [line.one.title for line in made.rows] == ["gaussian"]
    assert [one.title for one in made.failed] == ["large", "lost"]
    assert made.headline[0].startswith("zoo: the row large failed: ")
    # Mended, it is tried again; what was finished is not.
    kept = (folder_of(tmp_path, "a") / "zoo" / "rows" / "gaussian.json").stat().st_mtime_ns
    large["density"]["training"]["batch_size"] = 8
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(large))
    folder = tmp_path / "nowhere"
    folder.mkdir()
    zoo = Zoo.open(folder_of(tmp_path, "a") / "zoo" / "zoos" / "zoo-aligned")
    for number, row_D in enumerate(zoo.read(zoo.rows("test", "last"))):
        state = {name: value[0] for name, value in zoo.layout.unflatten(row_D[None]).items()}
        save_file(state, folder / f"{number}.safetensors")
    made = audit_generators(config, tmp_path, name="a")
    assert [line.one.title for line in made.rows] == ["large", "gaussian", "lost"]
    assert made.failed == ()
    assert (folder_of(tmp_path, "a") / "zoo/rows/gaussian.json").stat().st_mtime_ns == kept
    held_out = next(line.one for line in made.lines if line.one.family == "held-out")
    lost = next(line.one for line in made.rows if line.one.title == "lost")
    accuracy = held_out.networks["test_accuracy"]
    assert lost.networks["test_accuracy"] == accuracy, "files of held-out networks are these"


@pytest.mark.slow
def test_samples_of_another_report_are_a_row_where_it_is_on_the_same_zoo(make, files, tmp_path):
    audit_generators(make(gaussian="gaussian"), tmp_path, name="first")
    report = folder_of(tmp_path, "first") / "zoo" / "reports" / "zoo" / "report.json"
    config = make(kde="kde", theirs={"samples": str(report)})
    made = audit_generators(config, tmp_path, name="second")
    assert [line.one.title for line in made.rows] == ["kde", "theirs"]
    (theirs,) = (
        one for one in json.loads(report.read_text())["sets"] if one["family"] == "samples"
    )
    assert made.rows[1].one.summary == theirs["summary"]
    told = json.loads(report.read_text())
    told["limits"]["unit"] *= 2
    (tmp_path / "other.json").write_text(json.dumps(told))
    config = make(theirs={"samples": str(tmp_path / "other.json")})
    with pytest.raises(WorkFailed, match=r"theirs \(zoo\): .*other.json is on another zoo"):
        audit_generators(config, tmp_path, name="third")


def test_settings_that_cannot_be_leave_no_folder_behind(make, files, tmp_path):
    with pytest.raises(ConfigError, match=r"generator = None and samples = None: a row is one of"):
        make(nothing={})
    with pytest.raises(ConfigError, match=r"rows.zoo: its name must be no path and not that of a"):
        make(zoo="gaussian")
    with pytest.raises(ConfigError, match=r"rows.a.zoo = 'b': the zoos are zoo"):
        make(a={"generator": files["kde"], "zoo": "b"})
    wrong = yaml.safe_load(Path(files["gaussian"]).read_text()) | {"epochs": "none"}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    config = make(a={"generator": str(tmp_path / "wrong.yaml")})
    with pytest.raises(ConfigError, match=r"wrong.yaml: epochs = 'none'"):
        audit_generators(config, tmp_path, name="a")
    assert not (tmp_path / "audits").exists()


def test_a_settings_file_that_changed_meanwhile_is_refused(make, files, tmp_path):
    config = make(gaussian="gaussian", kde="kde")

    with pytest.raises(Preempted):
        audit_generators(config, tmp_path, name="a", run=stop_after_one)
    told = yaml.safe_load(Path(files["kde"]).read_text())
    told["density"]["bandwidth"] = 0.5
    Path(files["kde"]).write_text(yaml.safe_dump(told))
    with pytest.raises(RunConflict, match=r"kde.yaml had density.bandwidth = None, .* now 0.5"):
        audit_generators(config, tmp_path, name="a")


def test_settings_of_stages_are_set_as_in_pipelines(make, files, tmp_path):
    config = make(flow=flow(files), gaussian="gaussian")
    told = ("sample.count=3", "generator[flow].density.training.steps=7", "zoo.recipe.epochs=2")
    audit = Audit.of(dataclasses.replace(config, set=told))
    label = config.labels[0]
    unit = Unit(label, "flow")
    assert audit.sample(unit).count == 3 and audit.zoo(label).recipe.epochs == 2
    assert audit.generator(unit).density.training.steps == 7
    before = Audit.of(config)
    assert before.generator(unit).density.training.steps == 60
    assert audit.generator(Unit(label, "gaussian")) == before.generator(Unit(label, "gaussian"))
    for wrong, words in {
        "sample.cuont=3": "no such setting",
        "generator.zoo=other": "links the stages",
        "pipeline.x=1": "no such stage",
    }.items():
        with pytest.raises(ConfigError, match=words):
            plan(dataclasses.replace(config, set=(wrong,)), tmp_path, name="a")
