"""A report that dwf writes is held to the published schema; one that was altered is refused."""

import json

import pytest
from jsonschema import Draft202012Validator

from dwf.commands.validate import validate
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.report.report import Report
from dwf.evaluation.report.schema import SCHEMA, validate_report
from dwf.evaluation.stage import evaluate


@pytest.fixture
def written(zoo, write_samples, no_figures):
    """The report.json of copies and baselines, and what it says."""
    write_samples("s", zoo.read(zoo.rows("train", "last"))[:5])
    config = EvaluateConfig("z", ("s",), noise=(0.1,), averages=(2, "all"), count=6)
    root = zoo.path.parent.parent
    evaluate(config, root, name="r")
    file = root / "reports" / "r" / "report.json"
    return file, json.loads(file.read_text())


def test_the_schema_is_one_and_a_report_keeps_to_it(written, capsys):
    file, content = written
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    assert validate_report(file) == content
    assert (content["format"], content["version"]) == ("dwf-report", 2)
    validate(file)
    assert f"{file}: dwf-report 2, {len(content['sets'])} sets" in capsys.readouterr().out


ALTERED = {
    "another version": (
        lambda told: told.update(version=1),
        r"format = 'dwf-report', version = 1, this dwf reads 'dwf-report', 2: make it again",
    ),
    "another format": (lambda told: told.pop("format"), r"format = None, version = 2"),
    "a key that is missing": (
        lambda told: told["sets"][2]["summary"].pop("good_and_novel"),
        r"sets\[2\].summary: 'good_and_novel' is a required property",
    ),
    "a share above 1": (
        lambda told: told["sets"][2]["summary"].update(copy=1.5),
        r"sets\[2\].summary.copy: 1.5 is greater than the maximum of 1",
    ),
    "networks that were left out": (
        lambda told: told["sets"][2]["networks"]["test_accuracy"].pop(),
        r"s: networks.test_accuracy has 4 values, summary.n is 5: every network counts",
    ),
    "a mean that is trimmed": (
        lambda told: told["sets"][2]["summary"]["test_accuracy"].update(mean=0.99),
        r"s: summary.test_accuracy.mean = 0.99, its networks have 0\.\d+: every network counts",
    ),
}


def test_what_was_altered_is_refused_by_name(written):
    """All in one test, since the report takes longer than to look at it."""
    file, _ = written
    text = file.read_text()
    for alter, expected in ALTERED.values():
        told = json.loads(text)
        alter(told)
        file.write_text(json.dumps(told))
        with pytest.raises(ConfigError, match=expected):
            validate_report(file)
    for wrong in ("{", "[]"):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=r"report.json"):
            validate_report(file)
    with pytest.raises(ConfigError, match="no such file"):
        validate_report(file.with_name("none.json"))
    with pytest.raises(ConfigError, match=r"pairs are expected|this dwf reads"):
        Report.load(file.parent)
