"""Samples are held against the networks that their own generator learnt from.

Against brute force over these networks, and against the report on a zoo that has no others.
"""

import json

import numpy as np
import pytest

from dwf.codecs.config import FlatConfig, PcaConfig
from dwf.densities.config import GaussianConfig
from dwf.errors import ConfigError, TooFewNetworks
from dwf.evaluation.config import EvaluateConfig, ReconstructionConfig
from dwf.evaluation.measure.yardstick import Yardstick
from dwf.evaluation.reconstruction import report_reconstruction
from dwf.evaluation.report.report import Report
from dwf.evaluation.stage import evaluate
from dwf.generators.config import GeneratorConfig, SampleConfig
from dwf.generators.learning import origin_facts
from dwf.generators.sample_stage import sample_networks
from dwf.generators.stage import fit_generator
from dwf.zoo.store import Zoo, write_zoo
from tests.evaluation.by_hand import matched_distances
from tests.pages import read_page
from tests.zoos import bare_facts

pytestmark = pytest.mark.usefixtures("no_figures")

QUICK = {"noise": (0.03,), "averages": (2, "all"), "count": 8}
N = 12
FIRST = {"networks": N, "by": "first"}


def root_of(zoo):
    return zoo.path.parent.parent


def run(zoo, *samples, name="r", **changes) -> Report:
    config = EvaluateConfig(zoo.name, tuple(one.name for one in samples), **(QUICK | changes))
    return evaluate(config, root_of(zoo), name=name)


def row(report, title):
    return next(one for one in report.sets if one.title == title)


def training(zoo):
    return zoo.read(zoo.rows("train", "last"))


def titles(report, subset):
    return [one.title for one in report.sets if one.subset == subset]


def test_distances_are_those_of_brute_force_over_what_was_learnt_from(zoo, write_samples):
    fresh_SD = zoo.read(zoo.rows("test", "last"))
    report = run(zoo, write_samples("s", fresh_SD, subset=FIRST))
    weights_ND = training(zoo)[:N]
    distance_S = matched_distances(zoo, fresh_SD, weights_ND)
    found = row(report, "s")
    np.testing.assert_allclose(found.networks["distance"], distance_S, rtol=1e-6)
    own_N = matched_distances(zoo, weights_ND, weights_ND, leave_one_out=True)
    limits = report.limits_of["first 12"]
    assert limits["unit"] == pytest.approx(np.median(own_N))
    assert limits["distance"] == pytest.approx(np.percentile(own_N, 1))
    ratio_S = np.array(found.networks["distance"]) / limits["unit"]
    np.testing.assert_allclose(found.networks["distance_ratio"], ratio_S)
    assert report.limits["unit"] != limits["unit"], "which is that of thirty"


def test_a_copy_of_a_network_that_was_not_learnt_from_is_new(zoo, write_samples):
    first, next_one = training(zoo)[:1], training(zoo)[N : N + 1]
    learnt = write_samples("learnt", first.repeat(5, 0), subset=FIRST)
    other = write_samples("other", next_one.repeat(5, 0), subset=FIRST)
    every = write_samples("every", next_one.repeat(5, 0))
    report = run(zoo, learnt, other, every)
    assert row(report, "learnt").mark == "copying"
    assert row(report, "learnt").networks["distance"] == [0] * 5
    found = row(report, "other")
    assert found.summary["copy"] == 0 and min(found.networks["distance_ratio"]) > 0.5
    assert found.networks["good_and_novel"] == [True] * 5
    assert row(report, "every").mark == "copying", "whose generator learnt from all"


@pytest.mark.parametrize("split", ["test", "val"])
def test_it_is_the_report_on_a_zoo_that_has_no_other_training_networks(zoo, write_samples, split):
    """But for the map, the held-out networks and the number of members of an ensemble."""
    noise_SD = np.random.default_rng(0).standard_normal((12, zoo.layout.size))
    weights_SD = training(zoo)[:12] + 0.05 * noise_SD
    report = run(zoo, write_samples("s", weights_SD, subset=FIRST), split=split)
    last = zoo.rows("train", "last")
    keep = np.sort(np.concatenate([last[:N], zoo.rows("val", "last"), zoo.rows("test", "last")]))
    columns = {name: v[keep] for name, v in zoo.columns.items() if name != "checksum"}
    block = (columns, zoo.read(keep))
    small = write_zoo(
        zoo.path.parent / "small", bare_facts(zoo), num_rows=len(keep), blocks=[block]
    )
    origin = {"zoo": "small", "zoo_fingerprint": origin_facts(small, 0)["fingerprint"]}
    alone = run(small, write_samples("s", weights_SD, **origin), split=split, name="alone")
    assert report.limits_of == {"first 12": alone.limits}
    mine = [one for one in report.sets if one.subset]
    others = [one for one in alone.sets if one.family not in ("originals", "held-out")]
    assert [one.bare_title for one in mine] == [one.title for one in others]
    for one, other in zip(mine, others, strict=True):
        assert one.summary["learnt_from"] == N and one.family == other.family
        for name, numbers in other.networks.items():
            assert name == "map" or one.networks[name] == numbers, (one.title, name)
        told = {"ensemble", "learnt_from", "subset", "mark"}
        assert {k: v for k, v in one.summary.items() if k not in told} == {
            k: v for k, v in other.summary.items() if k not in told
        }
        why = one.summary["mark"]["why"].replace(" (first 12)", "")
        assert (one.mark, why) == (other.mark, other.summary["mark"]["why"])


def test_sets_are_as_without_it_where_all_networks_were_learnt_from(zoo, write_samples):
    weights_SD = training(zoo)[:6] + 0.01
    alone = run(zoo, write_samples("s", weights_SD), name="alone")
    both = run(zoo, Zoo.open(zoo.path.parent / "s"), write_samples("t", weights_SD, subset=FIRST))
    of_all = [one for one in both.sets if not one.subset]
    assert [one.title for one in of_all] == [one.title for one in alone.sets]
    for one, other in zip(of_all, alone.sets, strict=True):
        assert one.networks == other.networks
        assert one.summary == other.summary | {"learnt_from": 30}
    assert both.limits == alone.limits and both.map_share == alone.map_share
    assert alone.limits_of == {} and "learnt from" not in alone.columns
    for file in ("report.json", "report.md", "report.html"):
        text = (root_of(zoo) / "reports" / "alone" / file).read_text()
        assert "learnt_from" not in text and "limits_of" not in text
        assert "Learnt from: how many" not in text


def test_sets_that_learnt_from_the_same_networks_share_a_yardstick(zoo, write_samples, monkeypatch):
    weights_SD, made = training(zoo)[:6] + 0.01, []
    own = Yardstick.__init__

    def counted(self, *given, **named):
        made.append(named.get("rows"))
        own(self, *given, **named)

    monkeypatch.setattr(Yardstick, "__init__", counted)
    random = {"networks": N, "by": "random", "seed": 1}
    told = {"a": FIRST, "b": random, "c": FIRST, "d": {"networks": 30, "by": "first"}}
    report = run(zoo, *(write_samples(name, weights_SD, subset=one) for name, one in told.items()))
    assert len(made) == 3, "all, the first twelve, a random twelve; the first thirty are all"
    baselines = ["a network + noise of 0.03 std", "average of 2", f"average of all {N}"]
    baselines += ["interpolation of two", "per-weight Gaussian", "PCA + Gaussian"]
    baselines += ["first layer of another", "each unit of another", "shuffled copies"]
    for subset, samples in (("first 12", ["a", "c"]), ("random 12, seed 1", ["b"])):
        expected = [*samples, *(f"{title} ({subset})" for title in baselines)]
        expected += [f"nearest originals of {name}" for name in samples]
        assert titles(report, subset) == expected
    assert "d" in titles(report, "") and row(report, "d").summary["learnt_from"] == 30
    every = [one.title for one in report.sets]
    assert len(set(every)) == len(every)
    at = report.columns.index("learnt from")
    cells = {one.title: cells[at] for one, cells in zip(report.sets, report.table, strict=True)}
    assert cells["a"] == cells["b"] == cells["average of 2 (first 12)"] == "12"
    assert cells["d"] == cells["originals (training)"] == cells["average of 2"] == "30"
    assert report.table[every.index("b")][0] == "b (learnt from random 12, seed 1)"


def test_markdown_page_and_json_tell_of_it(zoo, write_samples):
    report = run(zoo, write_samples("s", training(zoo)[:6] + 0.01, subset=FIRST))
    folder = root_of(zoo) / "reports" / "r"
    markdown, page = (folder / "report.md").read_text(), read_page(folder / "report.html")
    content = json.loads((folder / "report.json").read_text())
    assert content["limits_of"] == report.limits_of and list(report.limits_of) == ["first 12"]
    limit = f"{100 * report.limits_of['first 12']['accuracy']:.2f} %"
    assert f"Of a part (first 12): accuracy of at least {limit}" in markdown
    for text in (markdown, page):
        assert "Learnt from: how many training networks" in text
        assert "learnt from a part of the training networks (first 12)" in text
        assert "PCA + Gaussian (first 12)" in text
    assert "| networks | mark | good and novel | test accuracy (%) |" in markdown
    assert "| units | n | learnt from | median |" in markdown
    heading = '<th><abbr title="Learnt from: how many training networks'
    assert heading in page and page.count(">learnt from</abbr></th>") == page.count(heading) == 2
    assert Report.load(folder) == report


def test_a_verdict_is_against_baselines_of_the_same_networks(zoo, write_samples):
    """Networks that were not learnt from are new; baselines that are made of them are no match."""
    others_SD = training(zoo)[N:]
    report = run(zoo, write_samples("s", others_SD, subset=FIRST), noise=(3.0,))
    found, sets = row(report, "s"), report.sets
    best = max((o for o in sets if o.subset and o.is_baseline and o.n > 1), key=lambda o: o.share)
    assert (found.mark == "generalising" and f"the best: {best.title}" in report.headline[0]) or (
        best.share == 0 and "none has any" in report.headline[0]
    )
    others = {one.title for one in sets if one.is_baseline and not one.subset}
    assert not any(f'"{title}"' in paragraph for title in others for paragraph in report.headline)


def test_the_map_is_one_for_all_sets(zoo, write_samples):
    fresh_SD = zoo.read(zoo.rows("test", "last"))[:5]
    whole = write_samples("whole", fresh_SD)
    report = run(zoo, whole, write_samples("part", fresh_SD, subset=FIRST))
    assert row(report, "part").networks["map"] == row(report, "whole").networks["map"]


def test_equal_runs_write_equal_bytes(zoo, write_samples):
    samples = write_samples("s", training(zoo)[:6] + 0.01, subset=FIRST)
    for name in ("one", "two"):
        run(zoo, samples, name=name)
    one, two = (root_of(zoo) / "reports" / name / "report.json" for name in ("one", "two"))
    assert one.read_text().replace('"one"', '"two"') == two.read_text()


def test_what_cannot_be_held_against_so_many_is_refused(zoo, write_samples):
    weights_SD = training(zoo)[:6]
    for networks, error, said in (
        (3, TooFewNetworks, r"3 of the 30 training networks of .*z were learnt from.* needs 4"),
        (31, ConfigError, r"networks = 31: .*z has 30 training networks"),
    ):
        few = write_samples(f"s{networks}", weights_SD, subset=FIRST | {"networks": networks})
        with pytest.raises(error, match=said):
            run(zoo, few, name=f"r{networks}")


def test_from_generator_to_report(zoo, tmp_path):
    """A Gaussian in the span of twelve networks is as PCA + Gaussian of twelve, not of thirty."""
    settings = {"codec": FlatConfig(), "density": GaussianConfig()}
    config = GeneratorConfig("z", networks=N, networks_by="random", seed=4, **settings)
    fit_generator(config, tmp_path, name="g")
    drawn = sample_networks(SampleConfig("g", count=40), tmp_path, name="s")
    subset = drawn.facts.sampled.subset
    assert subset == {"networks": N, "by": "random", "seed": 4}
    report = run(zoo, drawn, count=40)
    (found,) = report.of("samples")
    assert (found.title, found.source) == ("Gaussian over flat weights", "s")
    assert len(set(found.networks["nearest"])) <= N
    ratio, *others = (
        row(report, title).figure("distance_ratio")
        for title in (found.title, "PCA + Gaussian (random 12, seed 4)", "PCA + Gaussian")
    )
    assert ratio == pytest.approx(others[0], rel=0.05)
    assert report.facts["samples s"]["subset.seed"] == 4


def test_reconstruction_tells_networks_that_were_learnt_from_apart(zoo, tmp_path):
    """Twelve networks span what eleven components hold: these come back, and no others."""
    settings = {"codec": PcaConfig(components=11), "density": GaussianConfig()}
    fit_generator(GeneratorConfig("z", networks=N, **settings), tmp_path, name="g")
    report = report_reconstruction(tmp_path, "g", config=ReconstructionConfig(networks=25))
    held_out, learnt = report.sets
    assert learnt.networks["network"] == list(range(100, 100 + N))
    assert learnt.summary["relative"] < 1e-4 < 0.5 < held_out.summary["relative"]
