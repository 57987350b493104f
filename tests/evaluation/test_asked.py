"""What samples were asked for against what was drawn, retrieval, and sets split by a column.

Held against numpy's least squares, a search by hand, and counts over the networks themselves.
"""

import json

import numpy as np
import pytest

from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.measure import retrieved
from dwf.evaluation.report import asked_against_drawn
from dwf.evaluation.report.sets import NetworkSet
from dwf.evaluation.stage import evaluate
from dwf.zoo.checkpoint import told_of as told_of_zoo
from dwf.zoo.store import write_zoo
from tests.evaluation.reconstructing import root_of

QUICK = {"noise": (0.1,), "averages": (2,), "count": 8}
HELD = {
    "val_accuracy": np.array([0.90, 0.94, 0.94, 0.98]),
    "initialisation": np.array(["he", "he", "normal", "normal"]),
}


def told_of(generator, **asked):
    return {"n": 4, "condition": {"generator": generator, "asked": asked, "guidance": 1.0}}


def answered(title, family, *, summary, **networks):
    accuracy = {"test_accuracy": networks.pop("accuracy"), "val_accuracy": networks.pop("val")}
    summary = summary | {"test_accuracy": {}}
    return NetworkSet(title, family, summary, accuracy | networks)


def test_the_line_is_that_of_least_squares_over_all_samples_of_a_generator():
    rng = np.random.default_rng(0)
    asked_S = rng.uniform(0.8, 0.9, 40)
    drawn_S = 0.3 + 0.6 * asked_S + 0.01 * rng.standard_normal(40)
    told = told_of("g", val_accuracy="0.8..0.9")
    sets = [
        answered(
            f"part {part}",
            "samples",
            summary=told,
            val=drawn_S[part::2].tolist(),
            accuracy=drawn_S[part::2].tolist(),
            asked_val_accuracy=asked_S[part::2].tolist(),
        )
        for part in (0, 1)
    ]
    (row,) = asked_against_drawn(sets)["numbers"]
    (slope, _), covariance = np.polyfit(asked_S, drawn_S, 1, cov=True)
    assert (row["source"], row["condition"], row["n"]) == ("g", "val_accuracy", 40)
    assert row["slope"] == pytest.approx(slope)
    assert row["standard_error"] == pytest.approx(covariance[0, 0] ** 0.5)
    assert row["correlation"] == pytest.approx(np.corrcoef(asked_S, drawn_S)[0, 1])
    assert row["drawn"]["mean"] == pytest.approx(drawn_S.mean())


def test_of_one_value_there_is_no_slope_and_of_categories_there_are_shares():
    made = answered(
        "s",
        "samples",
        summary=told_of("g", epoch=3, initialisation="each", data="mnist"),
        val=[0.5] * 4,
        accuracy=[0.1, 0.2, 0.3, None],
        asked_epoch=[3.0] * 4,
        nearest_epoch=[3.0, 4.0, 3.0, 4.0],
        asked_initialisation=["he", "he", "normal", "he:0.5,normal:0.5"],
        nearest_initialisation=["he", "normal", "normal", "he"],
        asked_data=["mnist"] * 4,
    )
    found = asked_against_drawn([made])
    (row,) = found["numbers"]
    assert (row["condition"], row["slope"], row["drawn"]["mean"]) == ("epoch", None, 3.5)
    shares = [(r["condition"], r["asked"], r["n"], r["share"]) for r in found["categories"]]
    assert shares == [
        ("initialisation", "he", 2, 0.5),
        ("initialisation", "he:0.5,normal:0.5", 1, None),
        ("initialisation", "normal", 1, 1.0),
        ("data", "mnist", 4, None),
    ]
    assert found["categories"][0]["accuracy"]["mean"] == pytest.approx(0.15)
    assert asked_against_drawn([answered("s", "samples", summary={}, val=[], accuracy=[])]) == {}


def test_many_categories_are_one_row():
    names = [str(number) for number in range(30)]
    made = answered(
        "s",
        "samples",
        summary=told_of("g", checkpoint="each"),
        val=[0.5] * 30,
        accuracy=[0.1, 0.3] * 15,
        asked_checkpoint=names,
        nearest_checkpoint=[*names[:24], *names[:6]],
    )
    (row,) = asked_against_drawn([made])["categories"]
    assert (row["asked"], row["n"], row["share"]) == ("30 of them", 30, 0.8)
    assert row["accuracy"]["mean"] == pytest.approx(0.2)


def test_retrieval_takes_the_nearest_and_equals_in_turn():
    found = retrieved({"val_accuracy": np.array([0.5, 0.93, 0.99, 0.94, 0.945])}, HELD)
    assert found.tolist() == [0, 1, 3, 2, 1]  # networks 1 and 2 are equally near
    words = np.array(["he", "he", "normal", "he:0.2,normal:0.8", "he"])
    found = retrieved({"initialisation": words}, HELD)
    assert found.tolist() == [0, 1, 2, 3, 0]
    rng = np.random.default_rng(0)
    held = {"a": rng.normal(size=30), "b": rng.choice(["x", "y", "z"], 30)}
    asked = {"a": rng.normal(size=9), "b": rng.choice(["x", "y", "z"], 9)}
    for place, position in enumerate(retrieved(asked, held)):
        apart = ((held["a"] - asked["a"][place]) / held["a"].std()) ** 2
        apart += held["b"] != asked["b"][place]
        assert apart[position] == apart.min()


@pytest.fixture
def varied(zoo):
    """The zoo with two initialisations, those of `he` the more accurate half of each split."""
    accuracy = zoo.columns["val_accuracy"]
    words = np.empty(len(accuracy), "<U6")
    for split in ("train", "val", "test"):
        for epoch in (1, 12):
            rows = zoo.rows(split, epoch)
            order = rows[np.argsort(accuracy[rows])]
            words[order] = np.where(np.arange(len(rows)) < len(rows) // 2, "normal", "he")
    columns = {key: v for key, v in zoo.columns.items() if key != "checksum"}
    blocks = [(columns | {"initialisation": words}, zoo.read())]
    return write_zoo(zoo.path.parent / "v", zoo.facts, num_rows=len(zoo), blocks=blocks)


def test_a_report_says_what_was_asked_for_and_splits_sets(varied, write_samples, zoo):
    rows = varied.rows("train", "last")
    words = varied.columns["initialisation"][rows]
    accuracy = varied.columns["val_accuracy"][rows]
    asked = {"val_accuracy": accuracy[:10], "initialisation": words[:10]}
    words_of = {"val_accuracy": "0.5..1", "initialisation": "each"}
    weights_ND = zoo.read(rows[:10])
    write_samples("s", weights_ND, asked=asked, condition=words_of, guidance=1.0)
    config = EvaluateConfig("v", ("s",), by="initialisation", **QUICK)
    report = evaluate(config, root_of(zoo), name="r")
    # Copies of the networks that were asked for are what was asked for.
    number, retrieval = report.asked["numbers"]
    assert number["slope"] == pytest.approx(1) == retrieval["slope"]
    assert (number["source"], retrieval["source"]) == ("flow", "retrieval for flow")
    shares = {(r["source"], r["asked"]): r["share"] for r in report.asked["categories"]}
    held = report.of("held-out")[0].networks
    number_of = dict(zip(varied.columns["network"], varied.columns["initialisation"], strict=True))
    own = np.array([number_of[n] for n in held["network"]])
    nearest = np.array([number_of[n] for n in held["nearest"]])
    for word in ("he", "normal"):
        wanted = (nearest[own == word] == word).mean()
        assert shares.pop(("held-out networks", word)) == pytest.approx(wanted)
    assert shares == {(s, w): 1.0 for s in ("flow", "retrieval for flow") for w in ("he", "normal")}
    (looked_up,) = report.of("retrieval")
    assert looked_up.title == "nearest to what s was asked for" and looked_up.mark == "copying"
    assert looked_up.networks["asked_initialisation"] == words[:10].tolist()
    # The parts of a set are its networks, each in one of them.
    (_, _, ((heading, cells),)) = report.more_tables[1]
    assert heading[:3] == ("networks", "value", "n")
    counts = {}
    for title, value, num, *_ in cells:
        counts.setdefault(title, {})[value] = int(num)
    assert counts["originals (training)"] == {"he": 15, "normal": 15}
    assert all(sum(counts[one.label].values()) == one.n for one in report.sets)
    assert counts[report.of("samples")[0].label]["he"] == (words[:10] == "he").sum()
    held_out = varied.rows("test", "last")
    he = held_out[varied.columns["initialisation"][held_out] == "he"]
    found = next(row for row in cells if row[:2] == ("held-out networks", "he"))
    wanted = 100 * varied.columns["test_accuracy"][he]
    assert found[3] == f"{wanted.mean():.2f} +- {wanted.std(ddof=1):.2f}"
    folder = root_of(zoo) / "reports" / "r"
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text()
        assert "What was asked for, and what was drawn" in text and "By initialisation" in text
    assert (folder / "asked.png").exists()
    assert json.loads((folder / "report.json").read_text())["asked"] == report.asked


def test_a_report_says_whether_the_checkpoint_asked_for_was_copied(zoo, write_samples):
    rows = zoo.rows("train", "last")
    asked = told_of_zoo(zoo, "checkpoint", rows=rows[[0, 1, 2, 3]])
    # Two copies of what was asked for, and two of other networks.
    told = {"asked": {"checkpoint": asked}, "condition": {"checkpoint": "each"}, "guidance": 1.0}
    write_samples("s", zoo.read(rows[[0, 1, 5, 6]]), **told)
    config = EvaluateConfig(zoo.path.name, ("s",), **QUICK)
    report = evaluate(config, root_of(zoo), name="r")
    shares = {(r["source"], r["asked"]): r["share"] for r in report.asked["categories"]}
    assert [shares["flow", word] for word in asked] == [1, 1, 0, 0]
    assert all(shares["retrieval for flow", word] == 1 for word in asked)
    (held,) = [share for (source, _), share in shares.items() if source == "held-out networks"]
    assert held == 0  # a checkpoint that nobody learnt from


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("depth", "v has no such column to split by; it has .*initialisation"),
        ("test_accuracy", "has no such column to split by"),
        ("epoch", "have 1 values of it, expected 2 to 32"),
    ],
)
def test_what_splits_nothing_is_refused(varied, by, said):
    with pytest.raises(ConfigError, match=said):
        evaluate(EvaluateConfig("v", by=by, **QUICK), root_of(varied), name="r")
    assert not (root_of(varied) / "reports").exists()
