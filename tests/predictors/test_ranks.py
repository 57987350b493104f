"""An experiment whose rows two ranks train together, held to that of one process."""

import numpy as np
import pytest

from dwf.predictors.stage import fit_predictors
from tests.predictors.kinds import experiment, line, write_made_zoo
from tests.ranked import launch


@pytest.mark.slow
def test_two_ranks_tell_what_one_process_does_and_a_row_fails_alone(lines, tmp_path):
    write_made_zoo(tmp_path)
    rows = {"constant": {"kind": "constant"}, "line": line()}
    fit_predictors(experiment(rows=rows), tmp_path, name="one")
    ran = launch(2, "-m", "tests.predictors.ranked", tmp_path)
    assert ran.returncode, "torchrun's own, where a rank ends with an error"
    assert "large (seed 0): 36 training networks are fewer than batch_size" in ran.stderr
    for row in rows:
        one, two = (
            np.load(tmp_path / f"runs/{name}/rows/{row}/seed-0/told.npz")["values"]
            for name in ("one", "ranks")
        )
        np.testing.assert_allclose(two, one, atol=1e-3)
