"""Whether a row determines a network: each of `cases.py` ends as its docstring says.

The independent answer is how each case is written. One network is tried in another process too.
"""

import dataclasses
import inspect

import pytest
import torch

from dwf.datasets.config import DataConfig
from dwf.datasets.load import load_dataset
from dwf.errors import ConfigError
from dwf.networks.config import MLPConfig, PythonConfig
from dwf.networks.functional import build_network, run_networks, score_networks
from dwf.networks.sound import refuse_unsound, source_digest
from dwf.networks.sound.elsewhere import refuse_otherwise
from dwf.networks.sound.trial import Trial
from dwf.trust import trust_code
from dwf.zoo.layout import Layout
from tests.networks import cases
from tests.networks.published import NARROW, shape_of

PLACE = "tests.networks.cases"
IN_NO_ROW = "is in no row, and answers in evaluation mode depend on it"
REFUSED = {
    "RandomIndex": f": perm {IN_NO_ROW}",
    "RandomMask": f": mask {IN_NO_ROW}",
    "NonPersistent": f": mix {IN_NO_ROW}",
    "HiddenAttribute": f": mix {IN_NO_ROW}",
    "HiddenList": rf": parts\[1\] {IN_NO_ROW}",
    "LayerInList": rf": layers\[0\].weight, layers\[0\].bias {IN_NO_ROW}",
    "OwnArray": f": table {IN_NO_ROW}",
    "closed": rf": forward.noise {IN_NO_ROW}",
    "HiddenBehindZeros": f": perm {IN_NO_ROW}",
    "Noise": "noisy draws random numbers in evaluation mode",
    "NumpyNoise": "draws numbers that torch did not draw in training mode",
    "PythonNoise": "draws numbers that torch did not draw in training mode",
    "OwnGenerator": "stream.state changes from call to call in evaluation mode",
    "scripted_in_place": "forward writes into the images it is given",
    "Counter": "calls changes from call to call in evaluation mode",
    "CountsInTraining": "calls changes from call to call in training mode",
    "CountedInEvaluation": "training changes steps, and answers depend on it",
    "MovingAverage": "training changes the buffer mean, which is no running statistics",
    "ClampsItself": "a.weight changes in evaluation mode",
    "OwnSeed": r"all of it \(a.weight, .*\) begins with the same numbers under every seed",
    "NumpyWeights": "a.weight begins with other numbers when it is built again under one seed",
    "CastsToDouble": "a.weight is float64, expected float32",
    "DoubleLogits": "wide gives logits of float64 in evaluation mode",
    "OverlappingLayers": "h1.weight and h2.weight overlap in memory",
    "TwoOutputsInTraining": "forward returns a tuple in training mode",
    "Lazy": "the layer 'a' is a LazyLinear, whose shape is not known",
    "AllFrozen": "nothing of it can be learnt: a.weight, .* is frozen",
}
ELSEWHERE = {"DrawnAtImport": "AT_IMPORT differs in another process, and the answers"}
CASES = {name for name, _ in inspect.getmembers(cases, inspect.isclass)} | {"scripted"}
SOUND = sorted(CASES - REFUSED.keys() - ELSEWHERE.keys())


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataConfig("digits"))


@pytest.fixture(scope="module")
def images(digits) -> torch.Tensor:
    return digits.prepare(digits.train.batch(torch.arange(8))[0])


def own(name: str) -> PythonConfig:
    trust_code(f"{PLACE}:{name}")
    return PythonConfig(f"{PLACE}:{name}")


@pytest.mark.parametrize("name", REFUSED)
def test_what_decides_beside_the_row_is_found_by_name(name, images):
    with pytest.raises(ConfigError, match=REFUSED[name]):
        Trial(own(name), images).findings()


@pytest.mark.parametrize("name", SOUND)
def test_sound_networks_pass(name, images):
    one, again = (Trial(own(name), images, others=n).findings() for n in (0, 50))
    assert one == again


@pytest.mark.parametrize("kind", ["he", "xavier"])
def test_an_initialisation_of_the_recipe_is_tried_too(kind, images):
    Trial(own("Base"), images, initialisations=[kind]).findings()
    with pytest.raises(ConfigError, match="under every seed"):
        Trial(own("OwnSeed"), images, initialisations=[kind]).findings()


# Depths and stems of one kind are built alike.
OUR_OWN = {n: c for n, c in NARROW.items() if n not in ("resnet", "resnet_imagenet")} | {
    "mlp": MLPConfig((12, 5, 4))
}


@pytest.mark.parametrize("name", OUR_OWN)
def test_our_own_kinds_are_held_to_the_same(name):
    shape = (12,) if name == "mlp" else shape_of(name)
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    findings = Trial(OUR_OWN[name], images).findings()
    assert set(findings.logits) == {"evaluation", "training"}


def test_random_numbers_go_on_as_if_nothing_had_been(images):
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    Trial(own("Dropout"), images).findings()
    assert torch.equal(torch.rand(4), wanted)


def test_another_process_tells_what_each_draws_anew(images):
    with pytest.raises(ConfigError, match=ELSEWHERE["DrawnAtImport"]):
        refuse_unsound(own("DrawnAtImport"), images)


def test_first_numbers_and_answers_of_another_process_are_compared(images):
    trial = Trial(own("Base"), images)
    here = trial.findings()
    refuse_otherwise(trial, here, there=here)
    start = here.start | {"b.bias (default)": "other"}
    with pytest.raises(ConfigError, match=r"b.bias \(default\) begins with other numbers in anoth"):
        refuse_otherwise(trial, here, there=dataclasses.replace(here, start=start))
    moved = {mode: [[v + 1 for v in row] for row in all_] for mode, all_ in here.logits.items()}
    with pytest.raises(ConfigError, match="forward differs in another process"):
        refuse_otherwise(trial, here, there=dataclasses.replace(here, logits=moved))


def test_classes_of_the_script_itself_are_refused(images):
    with pytest.raises(ConfigError, match="is not there for other processes to import; move"):
        trust_code("__main__:Own")
        refuse_unsound(PythonConfig("__main__:Own"), images)


def test_the_source_is_told_by_all_its_files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_layers.py").write_text("from torch import nn\nclass L(nn.Linear): pass\n")
    (tmp_path / "own_source.py").write_text("import own_layers\nmake = own_layers.L\n")
    config = PythonConfig("own_source:make", {"in_features": 3, "out_features": 2})
    trust_code(config.target)
    first = source_digest(config, build_network(config))
    assert first == source_digest(config, build_network(config)) and len(first) == 16
    with open(tmp_path / "own_layers.py", "a") as file:
        file.write("# changed\n")
    assert source_digest(config, build_network(config)) != first


def test_a_network_that_writes_into_its_inputs_scores_as_its_twin(digits):
    """Many rows and one tensor of images: the first network must not change the second's."""
    scores, logits = [], []
    inputs = digits.prepare(digits.train.batch(torch.arange(20))[0])
    before = inputs.clone()
    for name in ("InPlace", "ApartFromInPlace"):
        network = build_network(own(name))
        layout = Layout.of(network)
        weights_ND = torch.randn(3, layout.size, generator=torch.Generator().manual_seed(0)) / 4
        state = layout.unflatten(weights_ND)
        logits.append(run_networks(network, state, inputs=inputs))
        scores.append(score_networks(network, state, data=digits, part=digits.val))
    assert torch.equal(logits[0], logits[1]) and torch.equal(inputs, before)
    assert (scores[0].accuracy_N == scores[1].accuracy_N).all()
    assert (scores[0].loss_N == scores[1].loss_N).all()
