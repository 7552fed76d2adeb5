"""Shared code of the speed programs: timing in turns, tables, and results with provenance.

Machines are noisy and change speed while one measures, so candidates take turns in one process and
are compared round by round: a ratio of neighbours holds where a ratio of means does not.
"""

import gc
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

import normlab
from normlab.engine.provenance import machine
from normlab.store.flags import without_folders
from normlab.store.git import git_state

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("normlab", "jax", "jaxlib", "flax", "optax", "torch", "numpy")
Times = dict[str, np.ndarray]


def in_turns(
    candidates: Mapping[str, Callable[[], Any]], *, rounds: int = 15, least: float = 0.01
) -> Times:
    """Measure the seconds per call of each candidate in every round.

    Args:
        candidates: functions without arguments; what they return is waited for. Each is called
            twice beforehand, so that compilation is not timed.
        rounds: how often all take their turn. Every other round goes backwards.
        least: a turn repeats a call until it has taken about so many seconds.

    Returns:
        For each name an array of shape `(rounds,)`.
    """
    repeats = {}
    for name, call in candidates.items():
        jax.block_until_ready(call())
        repeats[name] = max(1, round(least / max(_turn(call, 1), 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    gc.disable()
    for index in range(rounds):
        names = list(candidates) if index % 2 == 0 else list(candidates)[::-1]
        for name in names:
            times[name].append(_turn(candidates[name], repeats[name]))
    gc.enable()
    return {name: np.array(seconds) for name, seconds in times.items()}


def _turn(call: Callable[[], Any], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(call())
    return (time.perf_counter() - started) / repeats


def times_faster(times: Times, ours: str, theirs: str) -> float:
    """Compute how many times faster `ours` is: the median over rounds of the ratio.

    >>> times_faster({"a": np.array([1.0, 2.0]), "b": np.array([2.0, 6.0])}, "a", "b")
    2.5
    """
    return float(np.median(times[theirs] / times[ours]))


def geometric_mean(ratios: Sequence[float]) -> float:
    """Compute the geometric mean, or NaN without values.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return float(np.exp(np.mean(np.log(ratios)))) if len(ratios) else float("nan")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format rows as Markdown, with the keys of the first as headings.

    >>> print(table([{"op": "batch", "ms": 1.25}]))
    | op | ms |
    |---|---|
    | batch | 1.25 |
    """
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        lines.append(f"| {' | '.join(_cell(row.get(head)) for head in heads)} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def save(name: str, results: Mapping[str, Any], figure: Figure | None = None) -> None:
    """Write `results/<name>.json`, with what they were measured on, and `results/<name>.svg`."""
    RESULTS.mkdir(exist_ok=True)
    record = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine(PACKAGES),
        "git": git_state(Path(normlab.__file__).parent, Path(__file__).parent),
        "results": results,
    }
    record["command"] = [Path(record["command"][0]).name, *record["command"][1:]]
    kept = {name: without_folders(name, value) for name, value in record["environment"].items()}
    record["environment"] = {name: value for name, value in kept.items() if value}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    if figure is not None:
        # The same numbers give the same file.
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            figure.savefig(path.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})


def fresh_process(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command in a new process, where flags and allocators take effect; return its output.

    Raises:
        RuntimeError: the command failed; the message has its output.
    """
    done = subprocess.run(arguments, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
