"""Puts the runs of several experiments side by side, and gives different arms different names."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normlab.store.files import DamagedError
from normlab.store.record import Record
from normlab.store.run import Run

AXIS = "experiment"
"""The axis that tells experiments apart if their arms do not."""

AnyRun = Run | Record


def side_by_side(experiments: Mapping[str, Sequence[AnyRun]]) -> list[AnyRun]:
    """Collect the runs of several experiments.

    An arm that two experiments configure alike is one arm, and a run in both lists counts once. If
    different arms have one name, every arm is named with its experiment, which is an axis then.

    Args:
        experiments: by name; the first names an arm that several have.
    """
    alike = _alike(experiments)
    return _named_apart(experiments) if alike is None else alike


def _alike(experiments: Mapping[str, Sequence[AnyRun]]) -> list[AnyRun] | None:
    """Collect the runs under one name an arm; None if one name stands for different arms."""
    arms: dict[str, AnyRun] = {}  # keys are configs
    configs: dict[str, str] = {}  # keys are names of arms
    found: dict[tuple[str, int], AnyRun] = {}
    for runs in experiments.values():
        keys = _configs(runs)
        for run in runs:
            key = keys.get(run.arm)
            if key is not None:
                first = arms.setdefault(key, run)
                run = replace(run, arm=first.arm, axes=first.axes)
                if configs.setdefault(run.arm, key) != key:
                    return None
            other = found.setdefault((run.arm, run.seed), run)
            if other.path.name != run.path.name:
                return None
    order = list(dict.fromkeys(arm for arm, _ in found))
    return sorted(found.values(), key=lambda run: order.index(run.arm))


def _named_apart(experiments: Mapping[str, Sequence[AnyRun]]) -> list[AnyRun]:
    return [
        replace(run, arm=f"{run.arm}, {name}", axes={**run.axes, AXIS: name})
        for name, runs in experiments.items()
        for run in runs
    ]


def _configs(runs: Sequence[AnyRun]) -> dict[str, str]:
    """Read the config of one begun run of each arm, without the seed."""
    found: dict[str, str] = {}
    for run in runs:
        if run.arm in found or not run.begun:
            continue
        try:
            config, proofs = run.config, run.provenance
        except DamagedError:  # the reader of the run reports the damage
            continue
        train = {**config.get("train", {}), "seed": None}
        own: Any = proofs[-1].get("own_code", {}) if proofs else {}
        found[run.arm] = json.dumps([{**config, "train": train}, own], sort_keys=True)
    return found
