"""`dwf list` shows every preset once, and says of each what its file says, read by hand here."""

import re

import pytest

from dwf.commands.presets import presets
from dwf.errors import ConfigError
from dwf.headers import FOLDERS, Preset, presets_of
from dwf.shipped import CONFIGS


def line_of(name: str, text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
    return re.sub(r" {2,}", " | ", line.strip())


def test_every_preset_is_listed_under_its_stage(capsys):
    presets()
    text = capsys.readouterr().out
    listed, folder = set(), ""
    for line in text.splitlines():
        if line.startswith("  "):
            listed.add(f"{folder}/{line.split()[0]}")
        else:
            folder = line.partition(":")[0]
    there = {str(file.relative_to(CONFIGS).with_suffix("")) for file in CONFIGS.rglob("*.yaml")}
    assert listed == there
    assert f"presets lie in {CONFIGS}" in text


@pytest.mark.parametrize(
    ("stage", "name", "told"),
    [
        ("zoo", "digits_16384", "16,896 networks | 139 s on two cores | 16,896 MLPs 64-16-10 on"),
        ("zoo", "pdiff_resnet18_cifar10", "1 network | - | 200 rows of one ResNet-18 on CIFAR-10"),
        ("zoo", "mlps_digits", "3 zoos, 1,728 networks | 1.6 minutes | Three zoos of 576"),
        ("pipeline", "digits_neurons", "16,896 networks | 51 minutes on one core | A zoo that is"),
        ("pipeline", "cnn_digits_neurons", "4,608 networks | - | 4,096 CNNs of two convolutions"),
        ("sweep", "pdiff_k", "4 trials | - | "),
        ("align", "iterated_mean", "- | 3 s on two cores | "),
    ],
)
def test_a_line_says_size_time_and_what_it_is(stage, name, told, capsys):
    presets((stage,))
    assert line_of(name, capsys.readouterr().out).startswith(f"{name} | {told}")


@pytest.mark.parametrize(
    ("measured", "time"),
    [
        (
            "test accuracy 96.2 +- 0.4 % (n = 4,096); 139 s on two cores of an Intel.",
            "139 s on two cores",
        ),
        ("8 min 28 s on two quiet cores.", "8 min 28 s on two quiet cores"),
        ("0.2 to 0.3 s a network on one core.", "0.2 to 0.3 s a network on one core"),
        ("(not yet)", "-"),
        ("not as one command; its stages one by one: zoo 612 s.", "-"),
        ("95.0 % with 12 samples.", "-"),
    ],
)
def test_the_time_is_the_first_that_the_header_gives(measured, time, tmp_path):
    file = tmp_path / "some.yaml"
    file.write_text(f"# Some networks.\n# Measured: {measured}\n# dwf zoo --config some.yaml\n")
    preset = Preset(file, "zoo")
    assert (preset.time, preset.said[0]) == (time, "Some networks.")


def test_a_wrong_stage_is_told_the_nearest():
    with pytest.raises(ConfigError, match="generatoor: no such stage; did you mean 'generator'"):
        presets(("generatoor",))


def test_folders_of_presets_are_all_known():
    folders = {file.parent for file in CONFIGS.rglob("*.yaml")}
    assert folders == {CONFIGS / folder for folder in FOLDERS}
    assert all(presets_of(folder) for folder in FOLDERS)
