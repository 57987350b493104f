"""What a dry run of a pipeline foretells, against what a run of it then does."""

import pytest

from dwf import settings
from dwf.commands import COMMANDS
from dwf.errors import ConfigError, TooFewNetworks
from dwf.folders.forecast import forecast, sum_of
from dwf.pipeline import PipelineConfig, commands
from dwf.sweeps.estimate import zoo_seconds
from dwf.zoo.config import ZooConfig
from dwf.zoo.stage import train_zoo

ZOO = "network: {kind: mlp, widths: [4, 3, 3]}\ndata: {kind: iris}\ncount: 10\n"
FLOW = (
    "density:\n  kind: flow\n  backbone: {kind: mlp, hidden: 8}\n"
    "  training: {steps: 2, batch_size: BATCH}\n"
)


@pytest.fixture
def foretold(tmp_path):
    """Foretell a pipeline of a tiny zoo and a flow: `foretold(components, batch, zoo=True)`."""

    def tell(components, batch, *, zoo=True):
        (tmp_path / "z.yaml").write_text(ZOO)
        told = f"codec: {{kind: pca, components: {components}}}\n" + FLOW
        (tmp_path / "g.yaml").write_text(told.replace("BATCH", str(batch)))
        (tmp_path / "s.yaml").write_text("count: 4\n")
        names = {n: str(tmp_path / f"{n}.yaml") for n in "zgs"}
        file = tmp_path / "tiny.yaml"
        lines = [f"zoo: {names['z']}"] * zoo + [f"generators: [{names['g']}]"]
        file.write_text("\n".join([*lines, f"sample: {names['s']}", ""]))
        config = settings.load(PipelineConfig, file)
        return forecast(list(commands(config, "tiny")), tmp_path / "root")

    return tell


def test_a_pipeline_that_works_has_no_problems_and_a_sum(foretold, tmp_path):
    zoo, fit, sample = found = foretold(2, 4)
    assert not any(one.problems for one in found)
    assert zoo.seconds == zoo_seconds(settings.load(ZooConfig, tmp_path / "z.yaml"))
    assert fit.seconds > 0 and sample.seconds > 0 and fit.num_bytes > 4 * 8 * 2
    # Ten networks of 27 numbers, weights, gradient and moments; batches of 64 flowers of 4 numbers.
    assert zoo.num_bytes == 10 * 4 * (4 * 27 + 64 * 4)
    assert float(sum_of(found)[2]) == pytest.approx(
        sum(one.seconds for one in found) / 3600, rel=0.05
    )


@pytest.mark.parametrize(
    "components, batch, words", [(9, 4, "span only"), (2, 9, "batch_size = 9")]
)
def test_what_it_says_will_fail_does(components, batch, words, foretold, tmp_path):
    problems = [problem for one in foretold(components, batch) for problem in one.problems]
    assert len(problems) == 1 and words in problems[0]
    root = ["--root", str(tmp_path / "root")]
    config = settings.load(ZooConfig, tmp_path / "z.yaml")
    train_zoo(config, tmp_path / "root", name="tiny")
    with pytest.raises(TooFewNetworks, match=words):
        COMMANDS["generator"].run(["--config", str(tmp_path / "g.yaml"), "--zoo", "tiny", *root])


def test_a_dry_run_that_foretells_a_failure_fails(foretold, tmp_path, capsys):
    foretold(2, 9)  # writes the files
    words = [str(tmp_path / "tiny.yaml"), "--root", str(tmp_path / "root"), "--dry-run"]
    with pytest.raises(ConfigError, match="generator tiny-g would fail"):
        COMMANDS["pipeline"].run(words)
    assert "WILL FAIL: generator tiny-g: " in capsys.readouterr().out
    foretold(2, 4)
    COMMANDS["pipeline"].run(words)


def test_a_dry_run_of_a_generator_that_would_fail_still_ends_with_the_table(
    make_zoo, tmp_path, capsys
):
    """Its own dry run refuses it, which the pipeline tells below the table."""
    make_zoo(10, name="z")
    words = [f"--set=generator.density.training.batch_size={batch}" for batch in (9, 6)]
    (tmp_path / "z.yaml").write_text("generators: [digits_flat]\n")
    common = [str(tmp_path / "z.yaml"), "--root", str(tmp_path), "--dry-run"]
    with pytest.raises(ConfigError, match="generator z-digits_flat would fail"):
        COMMANDS["pipeline"].run([*common, words[0]])
    told = capsys.readouterr().out
    assert "core-hours" in told.partition("generator: ")[2]
    assert "WILL FAIL: generator z-digits_flat: " in told.partition("core-hours")[2]
    COMMANDS["pipeline"].run([*common, words[1]])
    assert "WILL FAIL" not in capsys.readouterr().out


def test_a_dry_run_refuses_a_network_that_does_not_take_the_data(tmp_path, monkeypatch):
    for data, cure in (
        ("iris", "give 4 first and 3 last"),
        ("mnist", "give 784 first and 10 last"),
    ):
        if data == "mnist":
            monkeypatch.setenv("DWF_DATA", str(tmp_path / "none"))  # told from its settings alone
        file = tmp_path / f"{data}.yaml"
        file.write_text(ZOO.replace("4, 3, 3", "5, 3, 2").replace("iris", data))
        with pytest.raises(ConfigError, match=cure):
            COMMANDS["zoo"].run([str(file), "--root", str(tmp_path), "--dry-run"])
    assert not (tmp_path / "zoos").exists()


def test_inputs_that_nobody_makes_are_told(foretold):
    problems = [problem for one in foretold(2, 4, zoo=False) for problem in one.problems]
    assert len(problems) == 1 and "zoos/tiny is not there, and no stage before" in problems[0]


def test_the_dry_run_of_one_generator_says_it_too(make_zoo, tmp_path, capsys):
    make_zoo(10, name="z")
    words = ["--zoo", "z", "--config", "digits_flat", "--root", str(tmp_path), "--dry-run"]
    with pytest.raises(ConfigError, match="would fail"):
        COMMANDS["generator"].run([*words, "--density.training.batch-size", "9"])
    assert "WILL FAIL: 6 training networks are fewer than batch_size = 9" in capsys.readouterr().out
    COMMANDS["generator"].run([*words, "--density.training.batch-size", "6"])
    assert "WILL FAIL" not in capsys.readouterr().out
