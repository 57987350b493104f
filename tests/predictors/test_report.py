"""The report: what it says of planted rows, the same again, bytes equal, schema, transfer."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from dwf.commands.transfer import transfer
from dwf.errors import ConfigError
from dwf.predictors.compare import compare, subsets_of
from dwf.predictors.report import Report, write_report, write_transfer
from dwf.predictors.report.figures import binned, rank_correlation
from dwf.predictors.report.tables import headline, tables
from dwf.predictors.report.write import score_report
from dwf.predictors.summary import rows
from dwf.predictors.told import Told, Truth

PROPERTIES = ("test_accuracy", "test_loss")
IMAGES = 1000


def truth_of(count: int = 240, seed: int = 0) -> tuple[Truth, np.ndarray]:
    """The truth, and the expected share behind its first property."""
    random = np.random.default_rng(seed)
    expected = random.beta(20, 5, count)
    accuracy = random.binomial(IMAGES, expected) / IMAGES
    values = np.stack([accuracy, 2 - 2 * accuracy + 0.1 * random.normal(size=count)], 1)
    zoo = np.where(np.arange(count) % 3 == 0, "mnist", "fashion")
    architecture = np.full(count, "mlp 196-16-10")
    val, network = values[: count // 2] + 0.01, np.arange(count)
    return Truth(PROPERTIES, values, val, network, zoo, architecture, (IMAGES, None)), expected


def told_of(truth: Truth, row: str, *, noise: float, seed: int = 0, **own) -> Told:
    random = np.random.default_rng([seed, len(row)])
    values = truth.values_NP + noise * random.normal(size=truth.values_NP.shape)
    val = truth.val_values_VP + noise * random.normal(size=truth.val_values_VP.shape)
    usual = {"access": "weights", "invariances": (), "last_NP": None, "val_VP": val}
    usual |= {"seconds": {"fit": 2.0 + seed, "predict": 0.5}, "facts": {}}
    return Told(row=row, seed=seed, values_NP=values, **usual | own)


@pytest.fixture(scope="module")
def planted():
    truth, expected = truth_of()
    constant = np.tile(truth.values_NP.mean(0), (len(expected), 1))
    flat = {"values_NP": constant, "val_VP": constant[: len(truth.val_values_VP)]}
    oracle = np.stack([expected, truth.values_NP[:, 1]], 1)
    changes = {"permutations": {"largest": 2e-7, "claimed": True}}
    changes |= {"scales": {"largest": 0.4, "claimed": True}}
    told = [
        replace(told_of(truth, "constant", noise=0, access="columns"), **flat),
        told_of(truth, "statistics", noise=0.06),
    ]
    for seed in (1, 0, 2):
        own = {"invariances": ("permutations", "scales"), "facts": {"invariance": changes}}
        told.append(told_of(truth, "weightnet", noise=0.01, seed=seed, **own))
    probe = {"access": "networks", "facts": {"attention": {"layers.0": 0.25, "layers.1": 0.75}}}
    last = truth.values_NP + 0.2
    told.append(replace(told_of(truth, "oracle", noise=0, **probe), values_NP=oracle, last_NP=last))
    return truth, told


@pytest.fixture(scope="module")
def made(planted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    truth, told = planted
    facts = {"what was told": {"zoo": "digits <b>"}}
    report = write_report(
        folder, "try", truth=truth, told=told, baselines=("statistics",), facts=facts
    )
    return report, folder


def test_figures_are_those_of_libraries(planted, made):
    truth, told = planted
    report, _ = made
    for one in told:
        entry = report.entry(one.row, "test_accuracy")
        place = report_row(report, one.row).seeds.index(one.seed)
        if one.row != "constant":
            expected = kendalltau(truth.values_NP[:, 0], one.values_NP[:, 0]).statistic
            assert entry.scores["tau"].seeds[place] == pytest.approx(expected, abs=1e-6)
    flat = report.entry("constant", "test_accuracy")
    assert (flat.tau, flat.scores["r2"].mean) == (0, pytest.approx(0, abs=1e-9))
    some = truth.zoo_N == "mnist"
    assert report.entry("oracle", "test_loss", subset="zoo mnist").n == some.sum() == 80


def report_row(report, name):
    return next(row for row in report.rows if row.name == name)


def test_rows_are_in_order_with_baselines_last_and_seeds_together(made):
    report, _ = made
    assert [row.name for row in report.rows] == ["weightnet", "oracle", "constant", "statistics"]
    assert [row.is_baseline for row in report.rows] == [False, False, True, True]
    row = report_row(report, "weightnet")
    assert (row.seeds, row.seconds["fit"]) == ((0, 1, 2), 3.0)
    assert report.entry("weightnet", "test_loss").scores["tau"].std > 0


def test_the_oracle_reaches_the_ceiling_and_the_best_baseline_is_the_one_to_beat(made):
    report, _ = made
    target = report.target("test_accuracy")
    assert target.best_baseline == "statistics"
    assert 0.7 < target.ceiling.noise < 1 and target.ceiling.tau < target.ceiling.ties < 1
    oracle = report.entry("oracle", "test_accuracy")
    assert report.over_ceiling(oracle) == pytest.approx(1, abs=0.03)
    assert report.over_ceiling(report.entry("oracle", "test_loss")) == pytest.approx(1)
    assert oracle.scores["gain"].low > 0
    assert "gain" not in report.entry("statistics", "test_accuracy").scores
    tau, other = (report.entry(row, "test_loss").tau for row in ("weightnet", "statistics"))
    gain = report.entry("weightnet", "test_loss").scores["gain"]
    assert gain.mean == pytest.approx(tau - other, abs=1e-6)


def test_an_interval_of_a_difference_is_narrower_than_those_of_its_rows(planted):
    """Two rows that err alike: on the same draws the difference hardly moves."""
    truth, _ = planted
    first = told_of(truth, "first", noise=0.05)
    second = replace(first, row="second", values_NP=first.values_NP + 1e-3)
    (_, entry, *_), _ = compare(truth, [first, second], baselines=("first",))
    assert (entry.row, entry.scores["gain"].mean) == ("second", pytest.approx(0, abs=1e-9))
    assert entry.scores["gain"].high - entry.scores["gain"].low < 1e-6
    assert entry.scores["tau"].high - entry.scores["tau"].low > 0.02


def test_sentences_say_who_is_above_whom_and_which_claim_fails(made):
    report, _ = made
    said = "\n".join(headline(report))
    assert "test_accuracy: " in said and "clearly above the best baseline, statistics" in said
    assert "weightnet claims that scales change no prediction, but they change one by 0.4" in (said)
    assert "claims that permutations" not in said
    (symmetries,) = [t for t in tables(report) if t.title == "Symmetries claimed and found"]
    by_row = {row[0]: row[2:] for row in symmetries.rows}
    assert by_row["weightnet"] == (
        "claimed, holds: 2e-07",
        "claimed, fails: 0.4",
        "not claimed, not tried",
    )


def test_the_row_that_is_named_is_chosen_on_validation_networks(planted, tmp_path):
    """Of two rows the better one on test networks is the worse on validation networks."""
    truth, _ = planted
    lucky, steady = (told_of(truth, name, noise=0.05) for name in ("lucky", "steady"))
    lucky = replace(lucky, values_NP=truth.values_NP, val_VP=-truth.val_values_VP)
    report = write_report(tmp_path, "two", truth=truth, told=[lucky, steady])
    entries = [report.entry(name, "test_loss") for name in ("lucky", "steady")]
    assert entries[0].tau == 1 > entries[1].tau > 0 > entries[0].val_tau == -1
    expected = kendalltau(truth.val_values_VP[:, 1], steady.val_VP[:, 1]).statistic
    assert entries[1].scores["val_tau"].mean == pytest.approx(expected, abs=1e-6)
    assert "test_loss: steady, the best row on validation networks" in "\n".join(headline(report))
    with pytest.raises(ConfigError, match=r"shape \(119, 2\), expected \(120, 2\)"):
        compare(truth, [replace(steady, val_VP=steady.val_VP[1:])], baselines=())


def files_below(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def test_it_comes_back_from_its_file_and_equal_inputs_write_equal_bytes(planted, made, tmp_path):
    report, folder = made
    assert Report.load(folder) == report
    truth, told = planted
    facts = {"what was told": {"zoo": "digits <b>"}}
    write_report(tmp_path, "try", truth=truth, told=told, baselines=["statistics"], facts=facts)
    files = files_below(folder)
    assert {"report.json", "report.md", "report.html", "attention.png", "heat.png"} < set(files)
    assert {"figures/heat-one-column.pdf", "figures/heat-two-columns.svg"} < set(files)
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file
    assert files_below(tmp_path) == files


def test_page_and_markdown_hold_every_row_and_picture(made):
    report, folder = made
    page, text = ((folder / f"report.{end}").read_text() for end in ("html", "md"))
    for shown in (page, text):
        for words in ("constant (baseline)", "function access", "Ceilings", "zoo mnist (n = 80)"):
            assert words in shown
    assert page.count("<figure>") == len(list(folder.glob("*.png"))) == text.count("![")
    assert "digits &lt;b&gt;" in page
    assert any("weightnet" in line and "0." in line for line in report.lines())
    assert max(map(len, report.lines()[:10])) < 160


def test_another_version_or_schema_is_refused(made, tmp_path):
    _, folder = made
    told = json.loads((folder / "report.json").read_text())
    file = tmp_path / "report.json"
    with pytest.raises(ConfigError, match="no such file"):
        Report.load(tmp_path)
    file.write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        Report.load(tmp_path)
    file.write_text(json.dumps(told | {"version": 9}))
    with pytest.raises(ConfigError, match="version = 9, this dwf reads 'dwf-predictors', 3"):
        Report.load(tmp_path)
    told["rows"][0]["access"] = "everything"
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"rows\[0\].access: 'everything'"):
        Report.load(tmp_path)


def test_rows_that_tell_no_numbers_are_refused(planted):
    truth, _ = planted
    one = told_of(truth, "broken", noise=0)
    bad = one.values_NP.copy()
    bad[3] = np.nan
    with pytest.raises(ConfigError, match=r"row broken .seed 0. tells no number of 1 of 240"):
        compare(truth, [replace(one, values_NP=bad)], baselines=())
    with pytest.raises(ConfigError, match=r"shape \(240, 1\), expected \(240, 2\)"):
        compare(truth, [replace(one, values_NP=bad[:, :1])], baselines=())
    with pytest.raises(ConfigError, match="no row told"):
        compare(truth, [], baselines=())
    labels = truth.zoo_N[:2], truth.architecture_N[:2]
    few = Truth(PROPERTIES, bad[:2], bad[:2], np.arange(2), *labels, (None, None))
    with pytest.raises(ConfigError, match="2 test networks"):
        compare(few, [one], baselines=())


def test_equal_true_values_and_a_single_row_still_make_a_report(tmp_path):
    truth, _ = truth_of(20)
    truth.values_NP[:, 0] = 0.5
    report = write_report(tmp_path, "flat", truth=truth, told=[told_of(truth, "one", noise=0.1)])
    assert report.target("test_accuracy").ceiling.tau is None
    assert report.entry("one", "test_accuracy").tau is None
    assert "all test networks have one value" in next(headline(report))
    assert Report.load(tmp_path) == report


def test_subsets_are_halves_and_groups(planted):
    truth, _ = planted
    found = subsets_of(truth, "test_accuracy")
    assert set(found) == {"all", "better half", "zoo fashion", "zoo mnist"}
    values = truth.values_NP[:, 0]
    assert values[found["better half"]].min() == pytest.approx(np.median(values), abs=2e-3)
    assert "better half" not in subsets_of(truth, "robustness")


def test_summary_rows_are_one_for_each_row_and_property(made, tmp_path):
    _, folder = made
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "try").symlink_to(folder)
    found = list(rows(tmp_path, "try"))
    assert len(found) == 8 and found[0]["row"] == "weightnet"
    assert found[2]["row"] == "constant (baseline)" and found[2]["tau"] == 0
    assert list(rows(tmp_path, "other")) == []


def test_transfer_is_a_matrix_of_who_learnt_where(planted, tmp_path):
    truth, told = planted
    reports = {}
    for name, row in (("mnist", "weightnet"), ("fashion", "statistics")):
        renamed = [replace(one, row="net") for one in told if one.row == row and one.seed == 0]
        reports[name] = score_report(name, truth, told=renamed)
    made = write_transfer(tmp_path / "both", "digits", reports=reports)
    assert [one.title for one in made] == ["net: test_accuracy", "net: test_loss"]
    assert made[0].learnt_from == ("mnist", "fashion") and made[0].told == ("fashion", "mnist")
    assert made[0].tau_RC.shape == (2, 2) and (made[0].tau_RC[0] > made[0].tau_RC[1]).all()
    expected = reports["mnist"].entry("net", "test_loss", subset="zoo fashion").tau
    assert made[1].tau_RC[0, 0] == expected
    assert "| learnt from | fashion | mnist |" in (tmp_path / "both" / "transfer.md").read_text()
    assert (tmp_path / "both" / "transfer.html").read_text().count("<figure>") == 2
    other = {"a": reports["mnist"], "b": replace(reports["fashion"], rows=())}
    with pytest.raises(ConfigError, match="no row in common"):
        write_transfer(tmp_path / "none", "none", reports=other)
    alone = {name: replace(r, targets=r.targets[:2], entries=r.entries) for name, r in
             reports.items()}  # fmt: skip
    (first, _) = write_transfer(tmp_path / "alone", "alone", reports=alone, by="architecture")
    assert first.told == ("mnist", "fashion") and np.isnan(first.tau_RC[0, 1])


def test_the_command_joins_reports_and_refuses_to_write_over_them(made, tmp_path, capsys):
    _, folder = made
    (tmp_path / "again").symlink_to(folder)
    transfer((folder, tmp_path / "again"), to=tmp_path / "both")
    assert "## weightnet: test_loss" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is there already"):
        transfer((folder, tmp_path / "again"), to=tmp_path / "both")
    with pytest.raises(ConfigError, match="two or more reports"):
        transfer((folder, folder), to=tmp_path / "other")


def test_bins_hold_equal_numbers_and_ranks_correlate_as_in_scipy():
    random = np.random.default_rng(0)
    told = random.normal(size=1000)
    truth = 2 * told + random.normal(size=1000)
    said, true, error = binned(told, truth)
    assert len(said) == 10
    np.testing.assert_allclose(true, 2 * said, atol=4 * error.max())
    np.testing.assert_allclose(error[1:-1], 1 / np.sqrt(100), rtol=0.3)
    assert len(binned(np.zeros(50), truth[:50])[0]) == 1
    found = rank_correlation(np.stack([told, truth, truth], 1))
    assert found[0, 1] == pytest.approx(spearmanr(told, truth).statistic)
    assert found[1, 2] == pytest.approx(1)
