"""How do time and memory grow with a network's sizes, and a sweep's with the number of its runs?

Prints, as Markdown, a table an axis (batch, channels, side of the images, depth; seeds of a sweep,
programs of a sweep, finished runs in a folder) with the slope of each quantity in log-log
coordinates, by least squares: 1 is linear. Memory is what XLA says a step needs beyond its
arguments, and the most that a process of its own had resident. Arithmetic is XLA's count for the
step before it is optimised. What grows faster, by more than a tenth in the slope, is marked.

Command: python -m experiments.speed.scaling
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed.growth import Quantities, draw, slopes
from experiments.speed.harness import fresh_process, in_turns, save, table
from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.reports.html import to_html
from normlab.reports.shown_comparison import compare
from normlab.store.loading import load_runs
from normlab.store.run import Run
from normlab.training.compiled import Compiled
from normlab.training.state import DeviceData

NETWORK = {"batch": 64, "channels": 16, "side": 16, "depth": 8, "norm": "batch_norm"}
NETWORK_AXES = {
    "batch": (16, 64, 256),
    "channels": (8, 16, 32),
    "side": (8, 16, 32),
    "depth": (8, 20, 56),
}
SWEEP_AXES = {"seeds": (2, 8, 32), "programs": (2, 4, 8), "finished runs": (50, 150, 400)}
EXCESS = 0.1
STEP = """
data: {{name: shapes, train_examples: {batch}, test_examples: 64, size: {side}}}
model: {{name: resnet, depth: {depth}, width: {channels}}}
norm: {norm}
optimizer: {{name: sgd, momentum: 0.9}}
schedule: {{name: cosine_decay_schedule, init_value: 0.01}}
train: {{epochs: 1, batch_size: {batch}, eval_batch_size: 64}}
"""
SWEEP = """
data: {{name: shapes, train_examples: 128, test_examples: 64, size: 8}}
model: {{name: mlp, widths: [32], activation: relu}}
optimizer: {{name: sgd, momentum: 0.9}}
schedule: {{name: cosine_decay_schedule, init_value: 0.01}}
train: {{epochs: 4, batch_size: 64}}
sweep: {{norm: [{norms}], seed: 0..{last}}}
"""
CLAIM = """
claims:
  - says: batch normalisation is more accurate than none
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: difference > 0
"""


def compiled_step(sizes: Mapping[str, Any], folder: Path) -> tuple[Compiled, DeviceData]:
    """Compile normlab's own step for a network of given sizes."""
    file = folder / "step.yaml"
    file.write_text(STEP.format(**sizes))
    sections = load_experiment(file).runs[0].sections
    data = DeviceData.put(build.dataset(sections))
    return Compiled(build.program(sections), data), data


def steps(compiled: Compiled) -> Callable[[], jax.Array]:
    """Return a function that takes the next step, for timing."""
    state, order = compiled.init(0), compiled.order(0, 0)

    def step() -> jax.Array:
        nonlocal state
        state, loss = compiled.step(state, order, 0)
        return loss

    return step


def measure_step(sizes: Mapping[str, Any], folder: Path) -> Quantities:
    """Measure time and memory of compilation, in a new process."""
    compiled, data = compiled_step(sizes, folder)
    step = steps(compiled)
    for _ in range(3):
        jax.block_until_ready(step())
    order = jax.ShapeDtypeStruct((compiled.train_examples,), jnp.int32)
    state, seed = jax.eval_shape(lambda: compiled.init(0)), jnp.zeros((), jnp.uint32)
    costs = jax.jit(compiled.program.step).lower(state, data, order, seed).cost_analysis() or {}
    return {
        "GFLOP": costs.get("flops", float("nan")) / 1e9,
        "compile s": compiled.seconds,
        "step MB": (compiled.peak_bytes or 0) / 1e6,
        "resident MB": most_resident(),
    }


def measure_paces(point: tuple[int, Mapping[str, Any]], folder: Path) -> Quantities:
    """Measure milliseconds per step of some networks, in turns."""
    rounds, networks = point
    calls = {key: steps(compiled_step(sizes, folder)[0]) for key, sizes in networks.items()}
    times = in_turns(calls, rounds=rounds)
    return {key: 1e3 * float(np.median(seconds)) for key, seconds in times.items()}


def most_resident() -> float:
    """Return the peak resident memory of this process in MB, or NaN if unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    # Not what `resource` says: that begins with what the parent had.
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


def measure_seeds(count: int, folder: Path) -> Quantities:
    """Measure a sweep of several seeds of one program, in a new process."""
    return make_sweep(folder, ["batch_norm"], count)


def measure_programs(count: int, folder: Path) -> Quantities:
    """Measure a sweep of several programs with two seeds each, in a new process."""
    norms = [f"{{name: batch_norm, momentum: {0.5 + i / 100}}}" for i in range(count)]
    return make_sweep(folder, norms, 2)


def make_sweep(folder: Path, norms: Sequence[str], seeds: int) -> Quantities:
    """Make a sweep of tiny runs; return the seconds without compilation."""
    engine = sweep(folder, norms, seeds)
    started = time.perf_counter()
    outcome = engine.run_all()
    seconds = time.perf_counter() - started
    compiled = {run.status["arm"]: run.status["compile_seconds"] for run in outcome.runs}
    return {"s": seconds - sum(compiled.values()), "resident MB": most_resident()}


def sweep(folder: Path, norms: Sequence[str], seeds: int, claims: str = "") -> Engine:
    """Return a function that makes a sweep of tiny runs in a folder."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(norms=", ".join(norms), last=seeds - 1) + claims)
    return Engine(load_experiment(file), folder / "runs")


def measure_finished(count: int, folder: Path) -> Quantities:
    """Measure commands on many finished runs (copies of two), in a new process."""
    norms = ["identity", "batch_norm"]
    sweep(folder, norms, 1).run_all()
    seconds: Quantities = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        seconds[name] = time.perf_counter() - started
        return result

    engine = timed("read the config, s", lambda: sweep(folder, norms, count // 2, CLAIM))
    made = {run.arm: run for run in engine.experiment.runs if run.seed == 0}
    for run in engine.experiment.runs:
        if run.seed:
            copy = engine.folder / run.id
            shutil.copytree(engine.folder / made[run.arm].id, copy)
            Run(copy).write_status(**Run(copy).status | {"seed": run.seed, "sealed": True})
    timed("run again, s", engine.run_all)
    comparison = timed("compare, s", lambda: compare(load_runs(engine.folder)))
    timed("report, s", lambda: to_html(comparison, "normlab report"))
    return seconds


POINTS: dict[str, Callable[[Any, Path], Quantities]] = {
    "step": measure_step,
    "pace": measure_paces,
    "seeds": measure_seeds,
    "programs": measure_programs,
    "finished runs": measure_finished,
}


def in_fresh_process(kind: str, point: Any, cache: str) -> Quantities:
    """Run `POINTS[kind]` in a new process and return its result."""
    command = ["-m", "experiments.speed.scaling", "--point", kind, json.dumps(point)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    return json.loads(fresh_process([sys.executable, *command], environment).splitlines()[-1])


def network_axes(axes: Mapping[str, Sequence[int]], rounds: int) -> dict[str, Any]:
    """For each axis its points, and what was found at each."""
    points = {(axis, value): {**NETWORK, axis: value} for axis in axes for value in axes[axis]}
    distinct = {json.dumps(sizes): sizes for sizes in points.values()}
    if not distinct:
        return {}
    with tempfile.TemporaryDirectory() as cache:
        found = {key: in_fresh_process("step", sizes, cache) for key, sizes in distinct.items()}
        # Last, because the cache has the programs then.
        paces = in_fresh_process("pace", [rounds, distinct], cache)
    results: dict[str, Any] = {}
    for (axis, value), sizes in points.items():
        key = json.dumps(sizes)
        results.setdefault(axis, {})[value] = {"step ms": paces[key], **found[key]}
    return results


def sweep_axes(axes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """For each axis its points, and what was found at each."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            axis: {value: in_fresh_process(axis, value, folder) for value in values}
            for axis, values in axes.items()
        }


def surprises(axis: str, found: Quantities) -> list[str]:
    """List in words what grows faster than the arithmetic, or than the runs."""
    due = max(1.0, found.get("GFLOP", 1.0))
    return [
        f"{name} grows by {axis} to the power of {own:.2f}, expected at most {due:.2f}"
        for name, own in found.items()
        if own > due + EXCESS
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, draw, save."""
    parser = argparse.ArgumentParser(description="How time and memory grow.")
    parser.add_argument("--rounds", type=int, default=9, help="of timing the steps")
    parser.add_argument("--points", type=int, default=9, help="at most so many an axis")
    parser.add_argument("--axes", default=",".join([*NETWORK_AXES, *SWEEP_AXES]))
    parser.add_argument("--point", nargs=2, metavar=("KIND", "JSON"), help=argparse.SUPPRESS)
    parser.add_argument("--save", default="scaling", help="the results' name")
    options = parser.parse_args(arguments)
    if options.point:
        kind, point = options.point
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(POINTS[kind](json.loads(point), Path(folder))))
        return
    chosen = options.axes.split(",")

    def part(axes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
        return {axis: values[: options.points] for axis, values in axes.items() if axis in chosen}

    results: dict[str, Any] = {}
    for found in (
        lambda: network_axes(part(NETWORK_AXES), options.rounds),
        lambda: sweep_axes(part(SWEEP_AXES)),
    ):
        for axis, points in found().items():
            show(axis, points)
            results[axis] = points
    about = {axis: {"points": p, "slopes": slopes(p)} for axis, p in results.items()}
    save(options.save, about, draw(results))


def show(axis: str, points: Mapping[int, Quantities]) -> None:
    """Print an axis as a table, with its slopes in the last line."""
    found = slopes(points)
    rows: list[dict[str, Any]] = [{axis: value, **q} for value, q in points.items()]
    print(f"\n{table([*rows, {axis: 'slope', **found}])}")
    for surprise in surprises(axis, found):
        print(f"\n! {surprise}", flush=True)


if __name__ == "__main__":
    main()
