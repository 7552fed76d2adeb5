"""Puts the runs of several experiments side by side; no two different arms have one name then."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from normlab.store.files import DamagedError
from normlab.store.record import Record
from normlab.store.run import Run

AXIS = "experiment"
"""The axis that tells experiments apart where their arms alone do not."""

AnyRun = Run | Record


def side_by_side(experiments: Mapping[str, Sequence[AnyRun]]) -> list[AnyRun]:
    """Collect the runs of several experiments.

    An arm that two experiments configure alike is one arm, and a run that both list counts once. If
    different arms have one name, every arm is named with its experiment, which is an axis then.

    Args:
        experiments: by name; the first names an arm that several have.
    """
    alike = _alike(experiments)
    return _named_apart(experiments) if alike is None else alike


def _alike(experiments: Mapping[str, Sequence[AnyRun]]) -> list[AnyRun] | None:
    """Collect the runs under one name an arm; None if one name stands for different arms."""
    arms: dict[str, AnyRun] = {}  # by config
    configs: dict[str, str] = {}  # by arm
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
    """Read for each arm what one of its runs does, without the seed; unless none has been begun."""
    found: dict[str, str] = {}
    for run in runs:
        if run.arm in found or not run.begun:
            continue
        try:
            config, proofs = run.config, run.provenance
        except DamagedError:  # which is told where the run is read
            continue
        train = {**config.get("train", {}), "seed": None}
        own: Any = proofs[-1].get("own_code", {}) if proofs else {}
        found[run.arm] = json.dumps([{**config, "train": train}, own], sort_keys=True)
    return found
