"""Networks with BatchNorm: which running statistics they are judged with, and what these affect."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dwf.align.config import AlignConfig
from dwf.align.frame import groups_of
from dwf.align.groups import permute, random_orders
from dwf.align.stage import align_zoo
from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError, CorruptShard, DataUnavailable
from dwf.evaluation.config import BatchNormConfig, EvaluateConfig
from dwf.evaluation.measure.baselines import Baseline, Drawn
from dwf.evaluation.measure.scoring import Scorer
from dwf.evaluation.measure.yardstick import Yardstick
from dwf.evaluation.report.columns import STATISTICS_COLUMNS, headings
from dwf.evaluation.report.report import Report
from dwf.evaluation.stage import evaluate
from dwf.networks.functional import score_networks
from dwf.randomness import torch_stream
from dwf.zoo.layout import Layout
from dwf.zoo.store import Zoo
from tests.pages import read_page

IMAGES = 300
ALL_IMAGES = BatchNormConfig(images=10**6)


@pytest.fixture
def trained(batchnorm_networks) -> tuple[Layout, np.ndarray]:
    return batchnorm_networks


@pytest.fixture
def write(write_batchnorm):
    return write_batchnorm


@pytest.fixture
def zoo(batchnorm_zoo) -> Zoo:
    return batchnorm_zoo


def buffers_of(layout: Layout) -> list[slice]:
    return [slice(e.offset, e.stop) for e in layout.entries if e.role == "buffer"]


def with_mean_statistics(zoo: Zoo, weights_ND: np.ndarray) -> np.ndarray:
    """What a codec's template gives."""
    filled_ND = weights_ND.copy()
    mean_D = zoo.read(zoo.rows("train")).astype(np.float64).mean(0)
    for part in buffers_of(zoo.layout):
        filled_ND[:, part] = mean_D[part]
    return filled_ND


def measured_plainly(zoo: Zoo, row_D: np.ndarray, part: str) -> float:
    """Accuracy with statistics of all training images, taken in one batch by plain torch."""
    data, network = zoo.load_data(), zoo.build_network()
    network.load_state_dict(zoo.layout.unflatten(torch.from_numpy(row_D)), strict=False)
    images, _ = data.train.batch(torch.arange(len(data.train)))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        for images_B in data.prepare(images).split(-(-len(images) // 6)):
            network.train()(images_B)
        chosen = getattr(data, part)
        images, labels = chosen.batch(torch.arange(len(chosen)))
        right = network.eval()(data.prepare(images)).argmax(1) == labels
    return right.double().mean().item()


def test_a_copy_is_judged_with_statistics_a_plain_loop_finds(zoo, write):
    weights_ND = zoo.read(zoo.rows("train"))[:3]
    copies = write("copies", with_mean_statistics(zoo, weights_ND), "template")
    yardstick = Yardstick(zoo, zoo.load_data(), batchnorm=ALL_IMAGES)
    measured = yardstick.measure_zoo(copies, np.arange(3), compare=True)
    plain = [measured_plainly(zoo, row_D, part="test") for row_D in weights_ND]
    # The loop's batches are other images: an answer may tip over.
    np.testing.assert_allclose(measured.accuracy_S, plain, atol=3 / 360)
    np.testing.assert_array_equal(measured.compared["recalibrated"], measured.accuracy_S)
    assert (measured.distance_S == 0).all() and (measured.nearest_S == [0, 1, 2]).all()
    assert (measured.accuracy_S > measured.compared["none"] + 0.1).all()


def test_strategies_are_what_they_are_called(zoo, write):
    weights_ND = with_mean_statistics(zoo, zoo.read(zoo.rows("train")))
    samples, data, network = (
        write("s", weights_ND, "template"),
        zoo.load_data(),
        zoo.build_network(),
    )
    measured = Yardstick(zoo, data).measure_zoo(samples, np.arange(8), compare=True)
    assert list(measured.compared) == ["none", "reference", "recalibrated"]
    for name, changed_ND in (("reference", weights_ND), ("none", weights_ND.copy())):
        if name == "none":
            for entry in zoo.layout.entries:
                if entry.role == "buffer":
                    is_variance = entry.name.endswith("var")
                    changed_ND[:, entry.offset : entry.stop] = float(is_variance)
        state = zoo.layout.unflatten(torch.from_numpy(changed_ND))
        expected = score_networks(network, state, data=data, part=data.test).accuracy_N
        np.testing.assert_array_equal(measured.compared[name], expected)
    reference = replace(BatchNormConfig(), score="reference", compare=())
    judged = Yardstick(zoo, data, batchnorm=reference).measure_zoo(samples, np.arange(8))
    np.testing.assert_array_equal(judged.accuracy_S, measured.compared["reference"])
    assert judged.compared == {}


def test_baselines_are_recalibrated_and_own_networks_are_not(zoo, write):
    yardstick = Yardstick(zoo, zoo.load_data())
    copied = Baseline("copies", np.eye(8)[[5, 2]])
    drawn = Drawn(copied, yardstick.training, deviation_D=yardstick.deviation_K, seed=0)
    baseline = yardstick.measure_drawn(drawn)
    same = write("same", zoo.read(zoo.rows("train"))[[5, 2]], "trained")
    copies = yardstick.measure_zoo(same, np.arange(2), compare=True)
    np.testing.assert_array_equal(baseline.wrong_SM, copies.wrong_SM)
    np.testing.assert_array_equal(baseline.loss_S, copies.loss_S)
    own = yardstick.measure_copies(np.array([5, 2]))
    np.testing.assert_array_equal(own.accuracy_S, copies.compared["own"])
    np.testing.assert_array_equal(own.accuracy_S, zoo.columns["test_accuracy"][[5, 2]])
    assert (baseline.distance_S == 0).all() and (own.distance_S == 0).all()


def test_statistics_take_no_part_in_distances_map_spread_and_noise(zoo, write):
    weights_ND = zoo.read()
    planted_ND = weights_ND.copy()
    for part in buffers_of(zoo.layout):
        planted_ND[:, part] *= np.random.default_rng(0).uniform(0.5, 2, (len(weights_ND), 1))
    other = write("other", planted_ND[zoo.columns["split"] == "train"], "generated")
    yardstick = Yardstick(zoo, zoo.load_data())
    found, expected = yardstick.measure_zoo(other, np.arange(8)), yardstick.originals
    assert (found.distance_S == 0).all() and found.spread == expected.spread
    np.testing.assert_array_equal(found.map_S2, expected.map_S2)
    num_learnt = sum(e.size for e in zoo.layout.entries if e.role != "buffer")
    assert yardstick.deviation_K.shape == (num_learnt,) and num_learnt < zoo.layout.size


@pytest.mark.parametrize("scale", ["none", "balanced"])
def test_copies_in_another_order_and_scale_are_found_out(zoo, write, tmp_path, scale):
    align_zoo(AlignConfig("z", scale=scale, num_pairs=0), tmp_path, name="aligned")
    aligned = Zoo.open(tmp_path / "zoos" / "aligned")
    groups = groups_of(aligned, scale)
    weights_ND = torch.from_numpy(aligned.read(aligned.rows("train")))
    moved_ND = permute(
        weights_ND, aligned.layout, groups=groups, orders=random_orders(groups, 8, seed=1)
    )
    if scale == "balanced":  # convolution, norm, relu, convolution: the norm makes the scale
        for power, name in ((1, "norms.0.weight"), (1, "norms.0.bias"), (-1, "convs.1.weight")):
            aligned.layout.unflatten(moved_ND)[name].mul_(1.7**power)
    copies = write("copies", moved_ND.numpy(), "trained")
    yardstick = Yardstick(aligned, aligned.load_data())
    measured = yardstick.measure_zoo(copies, np.arange(8), compare=True)
    typical = np.median(yardstick.originals.distance_S)
    assert (measured.distance_S < 1e-3 * typical).all()
    own_S, expected_S = measured.compared["own"], yardstick.originals.accuracy_S
    np.testing.assert_allclose(own_S, expected_S, atol=3 / 360)


def test_accuracies_that_other_trained_networks_record_are_those_with_their_own(zoo, write):
    rows = np.array([9, 10, 11])
    recorded = {"test_accuracy": zoo.columns["test_accuracy"][rows]}
    bare = BatchNormConfig(compare=())
    for name, config in (("a", BatchNormConfig()), ("b", bare)):
        trained_too = write(name, zoo.read(rows), "trained", **recorded)
        yardstick = Yardstick(zoo, zoo.load_data(), batchnorm=config)
        measured = yardstick.measure_zoo(trained_too, np.arange(3), compare=True)
        np.testing.assert_array_equal(measured.compared["own"], recorded["test_accuracy"])
    wrong = write("c", zoo.read(rows), "trained", test_accuracy=np.array([0.1, 0.2, 0.3]))
    with pytest.raises(DataUnavailable, match=r"c: row 0 has test accuracy .* 0\.1000"):
        yardstick.measure_zoo(wrong, np.arange(3))


def test_workers_change_nothing(zoo):
    data, config = zoo.load_data(), BatchNormConfig(images=IMAGES)
    mean_D, weights_ND = zoo.read().mean(0), zoo.read()
    scored = [
        Scorer(
            zoo.build_network(),
            zoo.layout,
            data=data,
            split="test",
            config=config,
            template_D=mean_D,
            workers=n,
        ).score(weights_ND, "recalibrated", compare=("own",))
        for n in (1, 3)
    ]
    for name, values in scored[0].items():
        np.testing.assert_array_equal(values, scored[1][name])


@pytest.mark.parametrize("column", [None, "none", "template"])
def test_originals_without_statistics_of_their_own_are_refused(zoo, write, column):
    path = write("bare", zoo.read(), column, split=zoo.columns["split"])
    with pytest.raises(ConfigError, match=r"bare: .*batchnorm"):
        Yardstick(path, zoo.load_data())


def test_samples_without_statistics_are_refused(zoo, write):
    yardstick = Yardstick(zoo, zoo.load_data())
    for name, column in (("a", None), ("b", "none")):
        samples = write(name, zoo.read()[:2], column)
        with pytest.raises(ConfigError, match=rf"{name}: .*batchnorm.*(dwf sample|not scored)"):
            yardstick.measure_zoo(samples, np.arange(2))


def test_broken_statistics_are_refused_by_row(zoo, write, trained):
    layout, weights_ND = trained
    broken_ND = weights_ND.copy()
    variance = layout.by_name["norms.0.running_var"]
    broken_ND[3, variance.offset] = -0.1
    for entry in layout.entries:
        if entry.role == "buffer":
            broken_ND[5, entry.offset : entry.stop] = float(entry.name.endswith("var"))
    samples = write("broken", broken_ND, "generated")
    with pytest.raises(CorruptShard, match=r"broken: .*in row 3, 5 \(2 of 12 read\)"):
        Yardstick(zoo, zoo.load_data()).measure_zoo(samples, np.arange(12))


def test_images_prepared_in_another_way_are_noticed(zoo):
    other = load_dataset(DataConfig(kind="digits", scaling="standard"))
    with pytest.raises(DataUnavailable, match=r"z: row 0 has test accuracy .*preparation"):
        Yardstick(zoo, other)


def test_the_report_compares_the_strategies(zoo, write, tmp_path):
    noise_ND = torch.randn(5, zoo.layout.size, generator=torch_stream(0, "samples")).numpy()
    weights_ND = zoo.read(zoo.rows("train"))[:5] + 0.05 * noise_ND
    write("s", with_mean_statistics(zoo, weights_ND), "template")
    settings = {"noise": (0.1,), "averages": (2, "all"), "count": 4}
    config = EvaluateConfig("z", ("s",), batchnorm=BatchNormConfig(images=IMAGES), **settings)
    report = evaluate(config, tmp_path, name="r")
    folder = tmp_path / "reports" / "r"
    rows = {row[0]: row[1:] for row in report.statistics_table}
    sizes = {"held-out networks": "3", "s": "5", "average of 2": "4", "average of all 8": "1"}
    assert {title: row[0] for title, row in rows.items()} == sizes
    assert rows["s"][1] == "-" and "-" not in rows["held-out networks"]
    content = json.loads((folder / "report.json").read_text())
    for one in content["sets"]:
        for source, found in one["summary"].get("batchnorm", {}).items():
            accuracies = one["networks"][f"test_accuracy_{source}"]
            assert len(accuracies) == one["summary"]["n"]
            assert found["mean"] == pytest.approx(np.mean(accuracies))
            cell = rows[one["title"]][headings(STATISTICS_COLUMNS).index(source) - 1]
            assert cell.startswith(f"{100 * np.mean(accuracies):.2f}")
    markdown, page = (folder / "report.md").read_text(), read_page(folder / "report.html")
    assert "Running statistics of BatchNorm" in markdown and "300 training images" in page
    for row in report.statistics_table:
        assert all(cell in markdown for cell in row)
        assert all(f"<td>{cell.replace('+-', '&plusmn;')}</td>" in page for cell in row)
    assert report.facts["evaluation"]["images for BatchNorm"] == IMAGES
    assert Report.load(folder) == report
