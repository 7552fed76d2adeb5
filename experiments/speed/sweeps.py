"""What is the fastest way to make a sweep: one run after another, several at once, or as one?

Makes a sweep of four normalisers by five seeds in several ways, each in processes of its own that
begin with an empty compilation cache, for a small residual network and an MLP. Prints, as Markdown:
seconds of the whole sweep, start and compilation included; milliseconds a step of one run, divided
by the runs that were made at once; and how far the losses are from those of one process. Ways that
would take minutes make a part of the sweep, and the table says so.

Command: python -m experiments.speed.sweeps
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import normlab
from experiments.speed.harness import fresh_process, save, table
from normlab.configs import build
from normlab.configs.experiment import load_experiment
from normlab.configs.run_config import RunConfig
from normlab.engine.executors import local
from normlab.engine.worker import Share, Worker
from normlab.training.state import DeviceData

NORMS = ("identity", "batch_norm", "layer_norm", "{name: group_norm, groups: 8}")
SEEDS, STEPS, BATCH = 5, 32, 64
MODELS = {
    "resnet": "{name: resnet, depth: 8}",
    "mlp": "{name: mlp, widths: [256, 256], activation: relu}",
}
CONFIG = """
data: {{name: shapes, train_examples: {examples}, test_examples: 256, size: 16}}
model: {model}
optimizer: {{name: sgd, momentum: 0.9}}
schedule: {{name: cosine_decay_schedule, init_value: 0.01}}
train: {{epochs: {epochs}, batch_size: {batch}, eval_every: {steps}}}
sweep: {{norm: [{norms}], seed: 0..{last}}}
"""
TOGETHER = "together.json"
STEPS_AN_EPOCH = 16


@dataclass(frozen=True)
class Made:
    """The result of a sweep, or a part of it, made in one way.

    Attributes:
        seconds: from the start of the first process to the end of the last.
        step: seconds a step of one run, divided by the runs that were made at once.
        losses: the mean training loss of each run, by arm and seed.
    """

    seconds: float
    step: float
    losses: dict[str, float]


# What a process does in each way: it leaves the runs, or what they came to, in `out`.


def one_process(file: Path, out: Path) -> None:
    """Make all runs in one process, which compiles one program for each normaliser."""
    normlab.run(file, out=out, jobs=1)


def workers_with_a_core(file: Path, out: Path) -> None:
    """Use two workers on a core each, with as many threads as one process would have."""
    normlab.run(file, out=out, jobs=2)


def workers_with_all_cores(file: Path, out: Path) -> None:
    """Use two workers that share the cores as the system decides."""
    local.shares = lambda workers, gpus: [Share() for _ in range(workers)]
    normlab.run(file, out=out, jobs=2)


class NarrowWorker(Worker):
    """A worker that starts on its cores, so that XLA makes that many threads."""

    def _begin(self) -> None:
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._share.cores)
        super()._begin()
        os.sched_setaffinity(0, everywhere)


def workers_with_a_thread(file: Path, out: Path) -> None:
    """Use two workers on a core each, with one thread."""
    local.Worker = NarrowWorker
    normlab.run(file, out=out, jobs=2)


def seeds_as_one(several: Callable[..., Any], file: Path, out: Path) -> None:
    """One process; an arm's seeds are one program, made by `several` of the program of one."""
    runs = load_experiment(file).runs
    data = DeviceData.put(build.dataset(runs[0].sections))
    losses: dict[str, float] = {}
    paces = []
    for arm in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == arm]
        found, pace = train_as_one(several, own, data)
        losses |= {name(arm, run.seed): float(x) for run, x in zip(own, found, strict=True)}
        paces.append(pace)
    about = {"step": float(np.mean(paces)), "losses": losses}
    (out / TOGETHER).write_text(json.dumps(about))


def train_as_one(
    several: Callable[..., Any], runs: Sequence[RunConfig], data: DeviceData
) -> tuple[np.ndarray, float]:
    """Train runs with several seeds together; return losses and seconds per step of a run."""
    program = build.program(runs[0].sections)
    examples, *shape = data.train.images.shape
    seeds = jnp.array([run.seed for run in runs], jnp.uint32)
    states = [program.init(seed, tuple(shape)) for seed in seeds]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    order = jax.jit(several(partial(program.order, examples=examples)))
    orders = order(seeds, jnp.zeros_like(seeds))

    def step(state: Any, order: Any, seed: Any) -> Any:
        return program.step(state, data, order, seed)

    compiled = jax.jit(several(step), donate_argnums=0).lower(states, orders, seeds).compile()
    steps = build.total_steps(runs[0].sections)
    started = time.perf_counter()
    for index in range(steps):
        epoch, within = divmod(index, program.recipe.steps_per_epoch(examples))
        if epoch and not within:
            orders = order(seeds, jnp.full_like(seeds, epoch))
        states, _ = compiled(states, orders, seeds)
    jax.block_until_ready(states)
    pace = (time.perf_counter() - started) / steps / len(runs)
    return np.asarray(states.meter.loss / states.meter.examples), pace


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Map a function like `jax.vmap`, but one after the other."""
    return lambda *arguments: jax.lax.map(lambda each: function(*each), arguments)


ALONE, PLAIN, VMAPPED, MAPPED = "a process a run", "one process", "seeds vmapped", "seeds in a loop"
WAYS: dict[str, Callable[[Path, Path], None]] = {
    PLAIN: one_process,
    "2 workers sharing all cores": workers_with_all_cores,
    "2 workers on a core each": workers_with_a_core,
    "2 workers with a thread each": workers_with_a_thread,
    VMAPPED: partial(seeds_as_one, jax.vmap),
    MAPPED: partial(seeds_as_one, one_by_one),
}
PARTS = {
    ("resnet", ALONE): (4, 1),
    ("mlp", ALONE): (4, 1),
    ("resnet", VMAPPED): (2, 5),
    ("resnet", MAPPED): (1, 5),
}
"""Ways that make but so many arms and seeds, so that the whole takes minutes."""


def measure(model: str, way: str, arms: int, seeds: int, steps: int) -> Made:
    """Make a sweep of some arms and seeds in one way."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "sweep.yaml", Path(folder) / "runs"
        out.mkdir()
        size = min(steps, STEPS_AN_EPOCH)
        file.write_text(
            CONFIG.format(
                examples=size * BATCH,
                model=MODELS[model],
                epochs=steps // size,
                batch=BATCH,
                steps=steps,
                norms=", ".join(NORMS[:arms]),
                last=seeds - 1,
            )
        )
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        started = time.perf_counter()
        if way == ALONE:
            # Without a cache, as in a script that nobody has told of one.
            environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
            experiment = load_experiment(file)
            for run in experiment.runs:
                words = shlex.split(experiment.command(run))[1:]  # after `normlab`
                command = [sys.executable, "-m", "normlab.cli", *words, "--out", str(out)]
                fresh_process(command, environment)
        else:
            command = ["experiments.speed.sweeps", "--way", way, str(file), str(out)]
            fresh_process([sys.executable, "-m", *command], environment)
        return read(out, time.perf_counter() - started, workers=2 if way.startswith("2") else 1)


def read(out: Path, seconds: float, workers: int) -> Made:
    """Read what the processes left in a folder."""
    if (out / TOGETHER).exists():
        return Made(seconds, **json.loads((out / TOGETHER).read_text()))
    paces, losses = [], {}
    for folder in (file.parent for file in out.glob("*/*/status.json")):
        run: Any = normlab.load(folder)
        status = run.status
        paces.append(status["train_seconds"] / status["step"])
        losses[name(status["arm"], status["seed"])] = run.metrics[-1]["train_loss"]
    return Made(seconds, float(np.mean(paces)) / workers, losses)


def name(arm: str, seed: int) -> str:
    """A run's, without the settings of its normaliser, which an arm that is alone does not name."""
    return f"{arm.partition('(')[0]} {seed}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description="Ways to make a sweep, measured.")
    parser.add_argument("--models", default=",".join(MODELS), help="some of resnet, mlp")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of a run")
    parser.add_argument("--ways", default=",".join([ALONE, *WAYS]), help="with commas between")
    parser.add_argument("--way", nargs=3, metavar=("WAY", "FILE", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--save", default="sweeps", help="the results' name")
    options = parser.parse_args(arguments)
    if options.way:
        way, file, out = options.way
        WAYS[way](Path(file), Path(out))
        return
    results = {}
    for model in options.models.split(","):
        results[model] = compare(model, options.ways.split(","), options.seeds, options.steps)
    save(options.save, {"seeds": options.seeds, "steps": options.steps, "models": results})


def compare(model: str, ways: list[str], seeds: int, steps: int) -> dict[str, Any]:
    """Compare all ways for one model and print their table."""
    made: dict[str, Made] = {}
    parts, lengths = {}, {}
    for way in ways:
        arms, own = PARTS.get((model, way), (len(NORMS), seeds))
        lengths[way] = 2 if (model, way) == ("resnet", MAPPED) else steps
        parts[way] = arms * min(own, seeds) / (len(NORMS) * seeds)
        made[way] = measure(model, way, arms, min(own, seeds), lengths[way])
        found = made[way]
        print(f"{way}: {found.seconds:.1f} s, {1e3 * found.step:.2f} ms", file=sys.stderr)
    plain = made.get(PLAIN, made[ways[0]])
    rows = []
    for way, found in made.items():
        is_whole = lengths[way] == steps
        rows.append(
            {
                "way": way,
                "s, whole sweep": round(found.seconds / parts[way], 1) if is_whole else None,
                "ms a step": 1e3 * found.step,
                "steps: times one process": plain.step / found.step,
                "losses: furthest from one process": furthest(found, plain) if is_whole else None,
                "measured": f"{parts[way]:.0%}" + ("" if is_whole else f", {lengths[way]} steps"),
            }
        )
    print(f"\n{model}, {len(NORMS)} normalisers by {seeds} seeds, {steps} steps of {BATCH} a run\n")
    print(table(rows), flush=True)
    return {"rows": rows, "made": {way: asdict(found) for way, found in made.items()}}


def furthest(found: Made, plain: Made) -> float:
    """Compute the largest relative difference of a loss."""
    return max(abs(x / plain.losses[run] - 1) for run, x in found.losses.items())


if __name__ == "__main__":
    main()
