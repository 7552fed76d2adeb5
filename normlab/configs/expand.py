"""Expands one config to all its runs, one at every point of the sweep."""

import copy
import itertools
import math
from collections import ChainMap
from dataclasses import replace
from typing import Any

from normlab.configs.data_files import Settle, settled_once
from normlab.configs.document import Node, Problem
from normlab.configs.exclusions import leave_out
from normlab.configs.learning_rate import RATE, rate_place, settle_rate
from normlab.configs.overrides import full_path
from normlab.configs.resolve import resolve
from normlab.configs.run_config import SEED_AXES, RunConfig
from normlab.configs.sweep import MOST_RUNS, Point, joined, read_axes
from normlab.store.seeds import seed_text

SEED = ("train", "seed")


def expand(config: Node) -> tuple[list[RunConfig], list[Problem]]:
    """Return all runs of a config, in the order in which they are made, and all its mistakes."""
    points, problems = _points(config)
    sweepless = config.without("sweep")
    runs: list[RunConfig] = []
    settle = settled_once()
    arms: dict[object, RunConfig] = {}
    for point in points:
        key, seed = _without_seed(point)
        if key in arms and seed is not None:  # an arm is resolved once, whatever its seeds
            runs.append(_of_seed(arms[key], seed, point))
            continue
        run, found = _run_at(point, sweepless, settle)
        if run is not None and seed is not None:
            arms[key] = run
            _ = run.arm, run.program_hash, run.arm_hash  # for all its seeds
        problems += found
        runs += [run] if run is not None else []
    return runs, problems + _repeated(runs, config)


def is_tied(config: Node) -> bool:
    """Return whether some axes go together, so that none of them can be overridden alone."""
    sweep = config.get("sweep")
    forms = [sweep.get(form) for form in ("zip", "list")] if sweep is not None else []
    return any(form is not None and form.value for form in forms)


def _points(config: Node) -> tuple[list[Point], list[Problem]]:
    """Return the points of the sweep in order, and all its mistakes.

    The last factor varies fastest. Without a sweep there is one point, which has no axes. The
    points of a sweep that is too large are not listed.
    """
    factors, axes, problems = read_axes(config)
    if math.prod(map(len, factors)) > MOST_RUNS:
        message = f"the sweep has more than {MOST_RUNS} runs; split it into several files"
        return [], [*problems, Problem(config.mark_at(("sweep",)), message)]
    points = [joined(parts) for parts in itertools.product(*factors)]
    left, found = leave_out(points, config, axes, whole=not problems)
    return left, problems + found


def _without_seed(point: Point) -> tuple[object, Node | None]:
    """Return what a point shares with those of other seeds, and its seed if that is a plain one."""
    others = {axis: id(node) for axis, node in point.values.items() if axis not in SEED_AXES}
    seeds = [node for axis, node in point.values.items() if axis in SEED_AXES]
    plain = len(seeds) == 1 and type(seeds[0].content) is int and 0 <= seeds[0].content < 2**32
    labels = [sorted(told.items()) for told in (point.names, point.words)]
    return (repr(others), repr(labels)), seeds[0] if plain else None


def _of_seed(run: RunConfig, seed: Node, point: Point) -> RunConfig:
    """Return the same run with the seed of another point."""
    found = run.with_seed(seed.content)
    axes = {axis: found.axes[axis] for axis in point.values}
    others: Any = run.origins  # they are read only, and shared by an arm's runs
    origins = ChainMap({SEED: seed.mark}, others)
    return replace(found, axes=axes, origins=origins).as_an_arm_with(run)


def _run_at(point: Point, variant: Node, settle: Settle) -> tuple[RunConfig | None, list[Problem]]:
    """Return the run at one point of the sweep, or everything that is wrong with it."""
    paths = {full_path(axis): axis for axis in point.values}
    for path, axis in paths.items():
        variant = variant.put(path, point.values[axis])
    axes = {axis: copy.deepcopy(variant.at(path).value) for path, axis in paths.items()}
    place = rate_place(variant) if variant.get(RATE[0]) is not None else None
    if place in paths:
        message = f"the axis '{paths[place]}' and 'learning_rate' set the same; keep one"
        return None, [Problem(variant.key_mark_at(RATE), message)]
    if place is not None and isinstance(axes.get(place[0]), dict):
        # It overwrites the rate of a swept schedule or optimiser, so their labels must not show it.
        axes[place[0]].pop(place[1], None)
    variant, problems = settle_rate(variant)
    run, found = resolve(variant, axes, settle)
    if run is None or problems:
        return None, problems + found
    return replace(run, names=point.names, words=point.words), []


def _repeated(runs: list[RunConfig], config: Node) -> list[Problem]:
    hashes: set[str] = set()
    called: set[tuple[str, int]] = set()
    messages = []
    for run in runs:
        if run.hash in hashes:
            messages.append(
                f"two runs of the sweep are the same: '{run.arm}' with seed {seed_text(run.seed)}"
            )
        elif (run.arm, run.seed) in called:
            messages.append(
                f"two different runs are called '{run.arm}' with seed {seed_text(run.seed)}; "
                "give each a label of its own"
            )
        hashes.add(run.hash)
        called.add((run.arm, run.seed))
    return [Problem(config.mark_at(("sweep",)), message) for message in messages]
