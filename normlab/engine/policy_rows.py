"""Evaluates a trained network by its run's policies, and writes what was found as rows."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from normlab.configs.evaluations import settings_of, short_labels
from normlab.configs.run_config import RunConfig
from normlab.data.dataset import Dataset
from normlab.engine.outcomes import keep_answers
from normlab.engine.probe_rows import Prober, as_rows
from normlab.measures.evaluated import AFTER, EVALUATE, quantity
from normlab.policies.evaluating import CLEAN, Evaluation, Setting, evaluations, source_of
from normlab.probes.contract import PerLayer, Readings
from normlab.store.run import Run
from normlab.training import metrics
from normlab.training.compiled import Compiled
from normlab.training.fit import Fitted
from normlab.training.state import TrainState


def finished(
    run: Run,
    compiled: Compiled,
    fitted: Fitted,
    data: Dataset,
    prober: Prober | None,
    about: dict[str, Any],
    config: RunConfig,
    should_stop: Callable[[], bool],
) -> Fitted:
    """Keep the answers of a trained network and evaluate it by policies, if the config has any.

    A run that is stopped in between is interrupted, and is evaluated when it goes on.
    """
    keep_answers(run, compiled, fitted.state, data)
    if config.sections.get("evaluate") is None:
        return fitted
    rows, seconds = judge(config.sections, compiled, fitted.state, data, prober, should_stop)
    if rows is None:
        return replace(fitted, status="interrupted")
    run.append_probes(rows)
    about |= {"policy_seconds": seconds}
    return fitted


def judge(
    sections: dict[str, Any],
    compiled: Compiled,
    state: TrainState,
    data: Dataset,
    prober: Prober | None,
    should_stop: Callable[[], bool],
) -> tuple[list[dict[str, Any]] | None, float]:
    """Return the rows of a run's evaluations, and the seconds that they took.

    The rows are None if `should_stop` said so in between. An evaluation that fails (for want of
    memory, say) leaves a row with its `error`: it is not worth the training that it judges.

    Args:
        sections: the resolved config, with the section `evaluate`.
        compiled: the program on its data.
        state: the state after the last step.
        data: the data.
        prober: the run's probes, which look at the adapted networks if `evaluate.look` says so.
        should_stop: asked before every batch.
    """
    given, step, started = sections["evaluate"], int(state.step), time.perf_counter()
    params, norm_state = compiled.for_evaluation(state)
    settings, rows = settings_of(sections), []
    try:
        source = source_of(data, given["examples"], sections["train"]["batch_size"], given["seed"])
        found = evaluations(
            compiled.program.network, params, norm_state, data, settings, source,
            given["corruptions"], given["severity"], given["seed"], should_stop,
        )  # fmt: skip
    except jax.errors.JaxRuntimeError as error:
        said = str(error).partition("\n")[0]
        return [{"step": step, "probe": EVALUATE, "error": said}], time.perf_counter() - started
    if not found:
        return None, time.perf_counter() - started
    for setting, label in zip(settings, short_labels(settings), strict=True):
        evaluation = found[setting]
        asked = compiled.program.recipe.metrics
        rows += as_rows(step, EVALUATE, readings(setting, evaluation, asked))
        if given["look"] and prober is not None:
            adapted = evaluation.adapted
            moved = state._replace(params=adapted.params, norm_state=adapted.last)
            rows += [
                {**row, "probe": f"{row['probe']}{AFTER}{label}"} for row in prober.look(moved)[0]
            ]
    return rows, time.perf_counter() - started


def readings(setting: Setting, evaluation: Evaluation, asked: Any) -> Readings:
    """Return what is kept of an evaluation: its metrics, for each corruption if there are any.

    Two more quantities tell how it went: `commonest`, the share of the class that is answered most,
    and `along`, the accuracy in ten equal pieces of the stream.
    """
    each: list[dict[str, float]] = []
    for right, labels, logits in zip(
        evaluation.right, evaluation.labels, evaluation.logits, strict=True
    ):
        more = metrics.of(asked, [logits], labels)
        each.append({"accuracy": float(right.mean()), "loss": _loss(logits, labels), **more})
    found: Readings = {}
    for name in each[0]:
        values: Any = np.array([one[name] for one in each])
        whole = evaluation.parts == (CLEAN,)
        own: Any = values[0] if whole else PerLayer(values, evaluation.parts)
        found[quantity(f"test_{name}", setting.words)] = own
    commonest: Any = np.float64(evaluation.commonest)
    along: Any = evaluation.along()
    found[quantity("commonest", setting.words)] = commonest
    found[quantity("along", setting.words)] = along
    return found


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    logs = np.asarray(jax.nn.log_softmax(logits))
    return float(-np.take_along_axis(logs, labels[:, None], 1).mean())
