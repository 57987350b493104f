"""A gate before the density: no density is fitted to a codec that cannot give networks back.

    gate.json    what was found; a run that goes on reads it and measures nothing again
    gate/        record of the codec that learns one network alone, until that is done

Validation networks are coded and decoded, and scored on validation images before and after, with
BatchNorm re-estimated for both. Beside that, a codec of the same settings, else untrained, learns
one training network alone: what published autoencoders were found not to do.

Shape suffixes: N networks, D numbers of a network, M images.
"""

import shutil
from collections.abc import Callable

import numpy as np
import torch

from dwf.codecs.trained import TrainedCodec
from dwf.errors import ConfigError
from dwf.files import read_json
from dwf.generators.config import GateConfig
from dwf.generators.examiner import Examiner
from dwf.generators.learning import Learning
from dwf.generators.round_trip import round_trip_error
from dwf.metrics import logger
from dwf.plain import Json
from dwf.randomness import numpy_stream
from dwf.run_folder import RunFolder, write_json
from dwf.zoo.moments import Source

FILE = "gate.json"
FREE = ("gate.drop", "gate.same_answers", "gate.anyway")
"""Settings of a run that may change once it was refused: nothing is measured by them."""
_ALONE = "gate"


def pass_gate(
    codec: TrainedCodec,
    learning: Learning,
    *,
    config: GateConfig,
    examine: Callable[[], Examiner],
    run: RunFolder,
    seed: int,
) -> dict[str, Json]:
    """Return what a fitted codec was found to give back, or refuse it.

    Networks that nothing can be scored by are let through with a warning.

    Args:
        codec: fitted.
        learning: what the density is to learn from; its first zoo's networks are tested.
        config: the least that is asked for.
        examine: makes what scores networks; raises `ConfigError` where none can be scored.
        run: of the generator.
        seed: of the draw of networks, and of the codec that learns one.

    Returns:
        Plain data: `validation` and `one_network`, each as `_measure` returns it, the latter None
        where it was not tried; `passed`. Or `not_tested`: why.

    Raises:
        ConfigError: validation networks lose more than they may; says what was found, what is
            asked for, and what to change.
        TrainingDiverged, Preempted: see `train`.
    """
    file = run.path / FILE
    if not file.exists():
        write_json(file, _test(codec, learning, config, examine, run, seed))
    shutil.rmtree(run.path / _ALONE, ignore_errors=True)
    found: dict[str, Json] = read_json(file)
    if "not_tested" in found:
        logger.warning("gate: the codec is not tested: %s", found["not_tested"])
        return found
    passed = _passes(found["validation"], config)
    told = f"gate: {describe(found, config)}"
    if passed:
        logger.info("%s", told)
    elif config.anyway:
        logger.warning("%s; the density is fitted anyway", told)
    else:
        raise ConfigError(
            f"{told}, so no density is fitted: {_advice(found, config)}, and give another --name; "
            f"or go on with --gate.anyway ({run.path})"
        )
    return found | {"passed": passed}


def describe(found: dict[str, Json], config: GateConfig) -> str:
    """Return in words what was found and what is asked for."""
    val, one = found["validation"], found["one_network"]
    text = (
        f"{val['networks']} validation networks lose {100 * val['drop']:.2f} points of accuracy on "
        f"validation images by the codec (at most {100 * config.drop:g} by gate.drop) and give "
        f"{100 * val['same_answers']:.1f} % of the answers as before (at least "
        f"{100 * config.same_answers:g} by gate.same_answers), relative error "
        f"{val['relative']:.3f}"
    )
    if one is not None:
        text += (
            f"; learnt alone in {config.overfit_steps} steps, one network loses "
            f"{100 * one['drop']:.2f} points and gives {100 * one['same_answers']:.1f} %, relative "
            f"error {one['relative']:.3f}"
        )
    return text


def _advice(found: dict[str, Json], config: GateConfig) -> str:
    one = found["one_network"]
    longer = "train the codec longer (codec.training.steps) or on more networks"
    larger = "give it more latents or width (codec.backbone), or a higher learning rate"
    if one is None:
        return f"{larger}; or {longer}"
    if _passes(one, config):
        return f"it can learn one network, so {longer}"
    return f"it does not even learn one network, so {larger}"


def _passes(measured: dict[str, Json], config: GateConfig) -> bool:
    return measured["drop"] <= config.drop and measured["same_answers"] >= config.same_answers


def _test(
    codec: TrainedCodec,
    learning: Learning,
    config: GateConfig,
    examine: Callable[[], Examiner],
    run: RunFolder,
    seed: int,
) -> dict[str, Json]:
    val = [source for source in learning.val[:1] if len(source[1])]
    if not val:
        return {"not_tested": "the zoo holds out no validation networks"}
    try:
        examiner = examine()
    except ConfigError as error:
        return {"not_tested": str(error)}
    (zoo, rows), most = val[0], config.networks
    drawn = numpy_stream(seed, "gate").permutation(len(rows))[:most]
    found = {"validation": _measure(codec, (zoo, rows[np.sort(drawn)]), examiner)}
    zoo, rows = learning.train[0]
    one = None
    if config.overfit_steps:
        part = run.part(_ALONE)
        alone = codec.learn_alone((zoo, rows[:1]), config.overfit_steps, run=part, seed=seed)
        one = _measure(alone, (zoo, rows[:1]), examiner)
    return found | {"one_network": one}


def _measure(codec: TrainedCodec, source: Source, examiner: Examiner) -> dict[str, Json]:
    """Return what networks lose on the way through a codec.

    Returns:
        `networks`: how many; means over them of `original` and `reconstructed` accuracy, `drop` and
        `same_answers`; `relative` and `rmse`, see `round_trip_error`.
    """
    zoo, rows = source
    totals, layout = np.zeros(3), zoo.layout
    for _, weights in zoo.stream(rows):
        weights_BD = torch.from_numpy(weights)
        decoded_BD = codec.decode(codec.encode(weights_BD, layout), layout)
        before = examiner.scores(weights_BD, keep_answers=True)
        after = examiner.scores(decoded_BD, keep_answers=True)
        same_BM = before.answers_NM == after.answers_NM
        each = (before.accuracy_N, after.accuracy_N, same_BM.mean(1))
        totals += [values_B.sum() for values_B in each]
    num = len(rows)
    original, reconstructed, same = (float(total) / num for total in totals)
    error = round_trip_error(codec, [source]) or {}
    return {
        "networks": num,
        "original": original,
        "reconstructed": reconstructed,
        "drop": original - reconstructed,
        "same_answers": same,
        "relative": error["relative"],
        "rmse": error["rmse"],
    }
