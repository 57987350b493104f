"""What a pipeline says is left: by hand, from what stages took, and from arithmetic without."""

import os

import pytest
import yaml

from dwf.commands.time_left import FILE, TimeLeft
from dwf.pipeline import Command
from dwf.run_folder import write_json

GIVEN = [
    Command("zoo", "z.yaml", name="way", links={}),
    Command("generator", "g.yaml", name="way-s1", links={"zoo": "way"}, seed=1),
    Command("generator", "g.yaml", name="way-s2", links={"zoo": "way"}, seed=2),
    Command("evaluate", "e.yaml", name="way", links={"zoo": "way"}),
]


def test_a_stage_takes_as_long_as_those_of_the_same_settings_before_it(tmp_path):
    left = TimeLeft(tmp_path / "way", GIVEN, elsewhere=False)
    first = "stage 1 of 4, about 0 s left in all without zoo, generator, evaluate"
    assert left.line(0) == first, "the files are not there, and a pipeline is not stopped by that"
    left.took(0, 30.0)
    left.took(1, 100.0)
    assert left.line(2) == "stage 3 of 4, about 100 s left in all without evaluate"
    assert left.at(2).words(7.0) == "stage 3 of 4, about 7 s left in all without evaluate"
    assert left.at(3).words(7.0) == "stage 4 of 4, about 7 s left in all"


def test_other_pipelines_of_the_root_tell_what_a_stage_took(tmp_path):
    other = TimeLeft(tmp_path / "other", GIVEN, elsewhere=True)
    for number, seconds in enumerate((30.0, 100.0, 110.0, 45.0)):
        other.took(number, seconds)
    left = TimeLeft(tmp_path / "way", GIVEN, elsewhere=False)
    assert left.line(0) == "stage 1 of 4, about 4 min 55 s left in all"
    left.took(3, 0.1)
    left.took(3, 60.0)
    left.took(3, 0.2)  # was finished already
    again = TimeLeft(tmp_path / "way", GIVEN, elsewhere=False)
    assert again.line(3) == "stage 4 of 4, about 60 s left in all"


@pytest.mark.parametrize("damaged", ["[", "[]", '{"zoo z.yaml": null}'])
def test_a_damaged_record_is_no_record(tmp_path, damaged):
    (tmp_path / "way").mkdir()
    (tmp_path / "way" / FILE).write_text(damaged)
    assert "without zoo" in TimeLeft(tmp_path / "way", GIVEN, elsewhere=False).line(0)


def test_of_a_zoo_of_mlps_the_arithmetic_is_six_operations_a_weight_image_and_epoch(tmp_path):
    zoo = {"network": {"kind": "mlp", "widths": [64, 16, 10]}, "data": {"kind": "digits"}}
    zoo |= {"count": 4000, "recipe": {"epochs": 40}}
    (tmp_path / "z.yaml").write_text(yaml.safe_dump(zoo))
    given = [Command("zoo", str(tmp_path / "z.yaml"), name="way", links={})]
    whole = TimeLeft(tmp_path / "way", [GIVEN[3], *given], elsewhere=False).at(0)
    images = 1797 * 0.8  # about as many are trained on
    wanted = 6 * (64 * 16 + 16 * 10) * images * 40 * 4000 / 10e9 / os.cpu_count()
    assert whole.seconds_after == pytest.approx(wanted, rel=0.3)
    assert TimeLeft(tmp_path / "way", given, elsewhere=True).line(0).endswith("without zoo")
    write_json(tmp_path / "way" / FILE, {f"zoo {given[0].file}": 5.0})
    assert (
        TimeLeft(tmp_path / "way", given, elsewhere=False).line(0).endswith("about 5 s left in all")
    )
