"""The stage on trained networks of the digits: known accuracies, whole counts, bitwise resumes."""

import json
from pathlib import Path

import numpy as np
import pytest

from dwf.cluster import local
from dwf.datasets.config import DataConfig
from dwf.errors import ConfigError, CorruptCheckpoint, RunConflict, ShapeMismatch
from dwf.settings import build, to_dict
from dwf.transfer.config import FinetuneConfig, FreezeConfig
from dwf.transfer.report import TransferReport
from dwf.transfer.stage import describe_cost, finetune, plan
from dwf.transfer.starts import Starts
from dwf.zoo.cohorts import Cohort
from dwf.zoo.config import RecipeConfig
from dwf.zoo.store import Zoo
from tests.transfer.conftest import DATA, write_samples

RECIPE = RecipeConfig(epochs=2, batch_size=64, learning_rate=0.01)


def config(**changes) -> FinetuneConfig:
    given = {"zoo": "z-aligned", "data": DATA, "samples": ("s",), "recipe": RECIPE}
    given |= {"count": 6, "epochs": (0, 1, 2), "members": 3, "cohort": 4}
    return FinetuneConfig(**(given | changes))


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture(scope="module")
def whole(made_root) -> tuple[Path, TransferReport]:
    """All arms, trained on the digits again."""
    return made_root / "finetunes" / "whole", finetune(config(), made_root, name="whole")


def test_every_arm_counts_all_its_networks(whole):
    folder, made = whole
    counts = {arm.title: arm.n for arm in made.arms}
    assert counts == {
        "random initialisation": 6,
        "originals": 6,
        "held-out originals": 6,
        "samples s": 6,
        "nearest originals of s": 6,
        "an original + noise of 0.1 std": 6,
        "average of 4": 6,
        "average of 4, unaligned": 6,
    }
    assert [row[1] for row in made.table] == ["6"] * 8 and len(made.together_table) == 8
    for arm in made.arms:
        assert arm.test_EN.shape == arm.val_EN.shape == (3, 6)
        assert arm.looks_LN.shape == (len(made.steps), 6)
        np.testing.assert_array_equal(arm.looks_LN[[0, -1]], arm.val_EN[[0, -1]])
    assert (folder / "report.md").read_text() == made.markdown
    html = (folder / "report.html").read_text()
    pictures = len(list(folder.glob("*.png")))
    assert html.count("<svg ") == 2 * pictures > 0 and all(title in html for title in counts)
    assert not (folder / "run" / "work").exists()


def test_what_is_written_is_what_is_read(whole):
    folder, made = whole
    assert to_dict(TransferReport.load(folder).to_json()) == to_dict(made.to_json())


def test_originals_begin_with_their_known_accuracies(whole, made_root):
    """Of aligned networks, on the images of the zoo, as it records them."""
    folder, made = whole
    starts = json.loads((folder / "starts.json").read_text())["arms"]
    for place in (1, 2, 4):  # originals, held out, nearest
        arm, begun = made.arms[place], starts[place]
        zoo = Zoo.open(made_root / "zoos" / begun["zoo"])
        rows = np.array(begun["rows"])[:, 0]
        for part in ("train", "val", "test"):
            recorded = zoo.columns[f"{part}_accuracy"][rows]
            np.testing.assert_allclose(getattr(arm, f"{part}_EN")[0], recorded, atol=2e-3)
    assert set(Zoo.open(made_root / "zoos" / "z").columns["split"][starts[2]["rows"]].ravel()) == {
        "val",
        "test",
    }


def test_steps_are_counted_to_the_end_of_a_start_from_scratch(whole):
    _, made = whole
    random = made.arms[0]
    assert made.reach == random.val_EN[-1].mean()
    steps_N = random.steps_to(made.reach, np.array(made.steps, float))
    for n, found in enumerate(steps_N):
        there = [
            s for s, v in zip(made.steps, random.looks_LN[:, n], strict=True) if v >= made.reach
        ]
        assert found == (there[0] if there else np.inf)
    assert made.arms[1].steps_to(0.2, np.array(made.steps, float)).tolist() == [0.0] * 6


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(whole, root):
    folder, _ = whole
    again = root / "finetunes" / "whole"
    finetune(config(), root, name="whole", run=local.runner(2))
    first, second = files_of(folder), files_of(again)
    assert first.keys() == second.keys()
    differing = {name for name in first if first[name] != second[name]}
    assert differing <= {"report.html"}, "which tells what ran it"


def test_units_are_as_large_as_they_are_asked_to_be_and_change_no_network(root):
    """Cohorts of two in units of two, against the same cohorts in one unit."""
    one = finetune(config(arms=("random",), cohort=2), root, name="one")
    three = finetune(config(arms=("random",), cohort=2, shard=2), root, name="three")
    units = [len(Starts.read(root / "finetunes" / name).units) for name in ("one", "three")]
    assert units == [1, 3]
    assert np.array_equal(one.arms[0].test_EN, three.arms[0].test_EN)
    assert np.array_equal(one.arms[0].looks_LN, three.arms[0].looks_LN)


def test_given_again_it_says_so_and_does_nothing(root, caplog):
    few = config(arms=("originals",), epochs=(0, 2))
    first = finetune(few, root, name="t")
    before = files_of(root / "finetunes" / "t")
    with caplog.at_level("INFO", "dwf"):
        assert finetune(few, root, name="t").markdown == first.markdown
    assert "finished already" in caplog.text and files_of(root / "finetunes" / "t") == before


@pytest.mark.parametrize("stop_after", [3, 25])
def test_a_fine_tuning_that_is_killed_ends_bitwise_equal(root, monkeypatch, stop_after):
    """In an epoch, and in a later cohort; looks between epochs, a frozen layer."""
    small = config(
        arms=("random", "originals"),
        look_every=5,
        freeze=FreezeConfig(layers="0.bias"),
        epochs=(0, 2),
        count=6,
    )
    finetune(small, root, name="whole")
    steps, original = 0, Cohort._step

    def counted(self, positions):
        nonlocal steps
        original(self, positions)
        steps += 1

    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Cohort, "_step", counted)
        patched.setattr("dwf.preemption.is_asked", lambda: steps == stop_after)
        patched.setattr("dwf.preemption.stop", stop)
        finetune(small, root, name="stopped")
    finetune(small, root, name="stopped")
    for name in ("report.json", "starts.json", "curves.png"):
        texts = [(root / "finetunes" / n / name).read_bytes() for n in ("whole", "stopped")]
        assert texts[0].replace(b"whole", b"stopped") == texts[1], name
    with pytest.raises(RunConflict, match=r"seed = 0, this one has 1"):
        finetune(config(**vars(small) | {"seed": 1}), root, name="stopped")


def test_a_plan_says_networks_and_time_and_touches_nothing(root):
    assert "fine-tune networks of z-aligned on digits" in plan(config(), root, name="new")
    said = describe_cost(config(), root)
    assert "48 networks x 2 epochs" in said and "minutes of one worker" in said
    assert "average of 4, unaligned (6)" in said
    assert "before the zoos are there" in describe_cost(config(zoo="later"), root)
    assert not (root / "finetunes").exists()


def test_a_network_that_diverges_counts_as_wrong(root):
    wild = RecipeConfig(epochs=2, optimizer="sgd", learning_rate=1e3, weight_decay=1e9)
    made = finetune(config(arms=("originals",), recipe=wild, members=2), root, name="wild")
    (arm,) = made.arms
    assert (arm.diverged_N > 0).all() and not arm.test_EN[1:].any() and arm.test_EN[0].all()
    assert not any(arm.ensemble_E[1:]) and not any(arm.soup_E[1:]) and arm.ensemble_E[0] > 0.5
    assert made.reach is None and "steps to" not in " ".join(made.columns)
    assert made.table[0][-1] == "6"


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": [0, 3]}, r"epochs = \[3\]: the recipe ends at 2"),
        ({"epochs": [1, 1]}, r"epochs = \[1, 1\]: give each once"),
        ({"arms": []}, "at least one"),
        ({"arms": ["nearest", "newest"]}, "did you mean 'nearest'"),
        ({"freeze": {"layers": "("}}, "no regular expression"),
        ({"freeze": {"share": 2}}, "at least 0, at most 1"),
        ({"averages": [1]}, "at least 2"),
        ({"arms": ["generated"], "samples": []}, "give zoos of samples"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build(FinetuneConfig, to_dict(config()) | changes, source="f.yaml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": DataConfig("iris")}, "iris has 4 inputs"),
        ({"data": DataConfig("iris"), "head": "keep"}, "iris has 3 classes: give head: new"),
        ({"images_per_class": 1000}, r"images_per_class = 1000: class 0 has \d+ training images"),
        ({"freeze": FreezeConfig(layers="conv")}, "'conv' is found in no parameter"),
        ({"freeze": FreezeConfig(layers=".")}, "nothing would learn"),
        (
            {"arms": ("generated",), "samples": ("other",)},
            "evaluate samples against the zoo they were",
        ),
    ],
)
def test_what_does_not_fit_the_networks_is_refused_before_a_folder_is_made(root, changes, words):
    if changes.get("samples"):  # of the zoo in its own frame
        write_samples(root, Zoo.open(root / "zoos" / "z"), "other", count=3)
    with pytest.raises(ConfigError, match=words):
        finetune(config(**changes), root, name="bad")
    assert not (root / "finetunes").exists()


def test_samples_of_another_layout_are_refused(root, make_zoo):
    make_zoo(name="wide", widths=(64, 12, 10))
    with pytest.raises(ShapeMismatch, match=r"wide: its networks have \d+ weights"):
        finetune(config(samples=("wide",)), root, name="bad")


def test_the_zoo_before_alignment_must_be_there_for_its_averages(root):
    (root / "zoos" / "z").rename(root / "zoos" / "moved")
    with pytest.raises(ConfigError, match="there is no zoo: leave average_unaligned out"):
        finetune(config(), root, name="bad")
    finetune(config(arms=("average",), recipe=RecipeConfig(epochs=2)), root, name="good")


def test_a_damaged_list_of_starts_is_told(root):
    finetune(config(arms=("random",)), root, name="t")
    (root / "finetunes" / "t" / "starts.json").write_text('{"method": ')
    with pytest.raises(
        CorruptCheckpoint, match=r"starts\.json is damaged.*: remove .*finetunes/t "
    ):
        finetune(config(arms=("random",)), root, name="t")


def test_networks_that_changed_since_are_refused(root):
    finetune(config(arms=("originals", "generated")), root, name="t")
    for file in (root / "zoos" / "s").iterdir():
        file.unlink()
    write_samples(root, Zoo.open(root / "zoos" / "z-aligned"), "s", count=4)
    with pytest.raises(RunConflict, match="no longer those of z-aligned, s"):
        finetune(config(arms=("originals", "generated")), root, name="t")
