"""Two folders side by side: tests against counting all cases by hand, and whole folders."""

import itertools
import json
from math import comb

import numpy as np
import pytest

from dwf.commands import COMMANDS
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError
from dwf.evaluation.config import EvaluateConfig
from dwf.evaluation.stage import evaluate
from dwf.folders.compare import compare
from dwf.folders.content import read_content
from dwf.folders.kinds import find_alike
from dwf.folders.significance import tell_apart
from dwf.networks.config import MLPConfig
from dwf.run_folder import RunFolder
from dwf.zoo.config import RecipeConfig, ZooConfig
from dwf.zoo.stage import train_zoo

A = np.array([0.3, 0.1, 0.8, 0.5, 0.9, 0.2])
B = A + np.array([0.1, 0.25, -0.05, 0.31, 0.02, 0.4])


def signed_rank_by_hand(differences):
    """All signs are equally likely: the share in which the smaller rank sum is as small."""
    ranks = 1 + np.abs(differences).argsort().argsort()
    total = ranks.sum()

    def smaller(signs):
        return min(ranks[signs].sum(), total - ranks[signs].sum())

    found = smaller(differences > 0)
    every = [np.array(s) for s in itertools.product((True, False), repeat=len(ranks))]
    return np.mean([smaller(signs) <= found for signs in every])


def rank_sum_by_hand(a, b):
    """All ways to deal the values are equally likely."""
    both, middle = np.concatenate([a, b]), len(a) * len(b) / 2

    def away(mine):
        theirs = [i for i in range(len(both)) if i not in mine]
        return abs(sum(both[i] > both[j] for i in mine for j in theirs) - middle)

    ways = list(itertools.combinations(range(len(both)), len(a)))
    found = away(range(len(a)))
    return np.mean([away(way) >= found for way in ways])


def test_pairs_are_held_against_themselves_in_any_order():
    names, order = list("abcdef"), [3, 1, 5, 0, 2, 4]
    shuffled = [names[i] for i in order]
    outcome = tell_apart(A, B[order], networks=(names, shuffled))
    assert outcome.name == "paired (Wilcoxon)" and outcome.n == (6, 6)
    assert outcome.p == pytest.approx(signed_rank_by_hand(B - A))


@pytest.mark.parametrize(
    "networks", [((), ()), ("abcdef", "abcdeg"), ("abcdef", "abcde"), ("aabcde", "aabcde")]
)
def test_other_networks_are_not_paired(networks):
    b = B[: len(networks[1]) or 6]
    outcome = tell_apart(A, b, networks=networks)
    assert outcome.name == "unpaired (Mann-Whitney)"
    assert outcome.p == pytest.approx(rank_sum_by_hand(A, b))


def test_shares_are_counted():
    a = np.array([True] * 3 + [False] * 9)
    b = np.array([True] * 2 + [False] + [True] * 7 + [False] * 2)
    paired = tell_apart(a, b, networks=(range(12), range(12)))
    assert paired.name == "paired (McNemar)"
    # 7 gained and 1 lost: heads of 8 fair coins, both tails.
    assert paired.p == pytest.approx(2 * (1 + 8) / 2**8)
    unpaired = tell_apart(a, b)
    assert unpaired.name == "unpaired (Fisher)"
    ways = {k: comb(12, k) * comb(12, 12 - k) for k in range(13)}  # 3 and 9 of 24
    assert unpaired.p == pytest.approx(2 * sum(ways[k] for k in range(4)) / comb(24, 12))


def test_what_says_nothing_is_not_tested():
    assert tell_apart(A[:1], B[:1]).p is None
    assert tell_apart(A, A, networks=("abcdef", "abcdef")).name == "paired: all equal"
    holes = np.where(A > 0.4, np.nan, A)
    assert tell_apart(holes, B, networks=("abcdef", "abcdef")).n == (3, 3)


def zoo_config(**changes):
    recipe = RecipeConfig(epochs=changes.pop("epochs", 1), batch_size=32)
    return ZooConfig(MLPConfig((4, 3, 3)), DataConfig("iris"), count=6, recipe=recipe, **changes)


def compared(a, b):
    return compare(read_content(a), read_content(b))


def test_zoos_of_one_seed_are_paired_by_network(tmp_path):
    for name, changes in {"a": {}, "b": {"epochs": 2}, "c": {"seed": 1}}.items():
        train_zoo(zoo_config(**changes), tmp_path, name=name)
    found = compared(*find_alike(("a", "b"), tmp_path))
    assert found.settings == (("recipe.epochs", 1, 2),)
    row = next(row for row in found.rows if row.measure == "val_accuracy")
    assert row.outcome.name.startswith("paired") and row.outcome.n == (6, 6)
    other = compared(*find_alike(("a", str(tmp_path / "zoos" / "c")), tmp_path))
    assert all(row.outcome.name.startswith("unpaired") for row in other.rows)


def test_reports_are_compared_row_by_row(make_zoo, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dwf.evaluation.stage.draw_figures", lambda *_, **__: {})
    zoo = make_zoo(20, widths=(64, 4, 10), data=DataConfig("digits"))
    for name, noise in {"r": 0.03, "s": 3.0}.items():
        config = EvaluateConfig(zoo.name, (), noise=(noise,), averages=(2,), count=8)
        evaluate(config, tmp_path, name=name)
    COMMANDS["compare"].run(["r", "s", "--root", str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [one["key"] for one in told["settings"]] == ["noise"]
    names = {(row["title"], row["measure"]): row["outcome"]["name"] for row in told["rows"]}
    assert names["held-out networks", "test_accuracy"] == "paired: all equal"
    noisy = next(row for row in told["rows"] if row["title"].count("noise") == 2)
    assert noisy["outcome"]["name"].startswith("unpaired") and noisy["measure"] == "test_accuracy"
    COMMANDS["compare"].run(["r", "s", "--root", str(tmp_path)])
    said = capsys.readouterr().out
    assert "Bonferroni" in said and "1 of" in said


def test_runs_have_one_number_each(tmp_path, capsys):
    for name, steps in {"a": 10, "b": 20}.items():
        run = RunFolder(tmp_path / "runs" / name, {"training": {"steps": steps}, "seed": 0})
        run.finish(density={"val_loss": 1.0 / steps})
    COMMANDS["compare"].run(["a", "b", "--root", str(tmp_path)])
    said = capsys.readouterr().out
    assert "training.steps  10  20" in said and "settings: 1 of 2 differ" in said
    assert "No test was made" in said and "-0.05" in said


def test_what_is_not_there_or_not_alike_is_refused(make_zoo, tmp_path):
    zoo = make_zoo(6, name="mine")
    RunFolder(tmp_path / "runs" / "fit", {}).finish()
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        find_alike(("mnie", "fit"), tmp_path)
    with pytest.raises(ConfigError, match="mine in zoos/, fit in runs/: give two of one kind"):
        find_alike(("mine", "fit"), tmp_path)
    with pytest.raises(ConfigError, match=r"is a zoo, .* is a run"):
        find_alike((str(zoo.path), str(tmp_path / "runs" / "fit")), tmp_path)
