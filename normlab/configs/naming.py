"""Decides to which experiment the runs of a command belong, and names it.

A command without overrides makes the experiment of its file. Overrides that choose seeds, or some
of the arms, make a part of that experiment. Other values of the axes that the file sweeps add arms
to it. Any other overrides make an experiment of their own, whose name says what was changed.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from normlab.configs.document import Path, flow, parse
from normlab.configs.learning_rate import RATE
from normlab.configs.overrides import full_path
from normlab.configs.run_config import RunConfig
from normlab.configs.sections import FORMS, SECTIONS
from normlab.errors import UserError
from normlab.store.names import words_of

SEED = ("train", "seed")


def key_of(override: str) -> Path:
    """Return the path that an override sets.

    >>> key_of("epochs=5"), key_of("sweep.seed=0..4")
    (('train', 'epochs'), ('sweep', 'seed'))
    """
    return full_path(override.partition("=")[0].strip())


def is_of_seeds(override: str) -> bool:
    """Return whether an override chooses seeds and nothing else."""
    path = key_of(override)
    return SEED in (path[:2], (swept(path) or ())[:2])


def swept(path: Path) -> Path | None:
    """Return the path that an axis of the sweep sets, or None for a path outside the sweep."""
    if path[:1] != ("sweep",) or len(path) == 1:
        return None
    return full_path(".".join(map(str, path[1:])))


def may_be_part(overrides: Iterable[str]) -> bool:
    """Return whether overrides change runs alone, and not an experiment's question or claims."""
    return all(
        key_of(one)[:1] in [(key,) for key in (*SECTIONS, "sweep", *RATE)] for one in overrides
    )


def as_part(runs: Sequence[RunConfig], whole: Sequence[RunConfig]) -> list[RunConfig] | None:
    """Give runs the labels that their arms have in a whole experiment, whatever their seeds are.

    Returns:
        The runs; None if one of them is of no arm of the whole.
    """
    arms = {arm_key(run): run for run in reversed(whole)}
    if any(arm_key(run) not in arms for run in runs):
        return None
    found = [arms[arm_key(run)].with_seed(run.seed).came_from(run.origins) for run in runs]
    return [labelled.on_devices_of(run) for labelled, run in zip(found, runs, strict=True)]


def as_axes(overrides: Iterable[str], sweep: Any) -> tuple[str, ...] | None:
    """Write overrides of axes as axes of one value, so that their arms are named as the others are.

    >>> as_axes(["norm=layer_norm"], {"norm": ["identity", "batch_norm"]})
    ('sweep.norm=[layer_norm]',)
    >>> as_axes(["epochs=5"], {"norm": ["identity", "batch_norm"]}) is None
    True

    Returns:
        The overrides; None if one of them is of no axis that can be changed alone.
    """
    axes = {full_path(str(axis)): axis for axis in sweep if axis not in FORMS} if sweep else {}
    found = []
    for override in overrides:
        path, (_, _, value) = key_of(override), override.partition("=")
        if path in axes:
            found.append(f"sweep.{axes[path]}=[{value}]")
        elif swept(path) in axes and value.strip() not in ("", "null", "~"):
            found.append(override)
        else:
            return None
    return tuple(found)


def arm_key(run: RunConfig) -> str:
    """Return a hash that a run shares with the runs of other seeds."""
    return run.arm_hash


def called_twice(runs: Iterable[RunConfig], others: Iterable[RunConfig]) -> bool:
    """Return whether two different arms, one of each list of runs, have the same name."""
    names = {run.arm: arm_key(run) for run in others}
    return any(names.get(run.arm, arm_key(run)) != arm_key(run) for run in runs)


def own_name(name: str, overrides: Iterable[str]) -> str:
    """Name the experiment that overrides make of another.

    The order of the overrides does not count, nor how their values are written.

    >>> own_name("tiny", ["train.batch_size=32", "norm=layer_norm"])
    'tiny+batch_size=32+norm=layer_norm'
    >>> own_name("tiny", ["learning_rate=1e-1"])
    'tiny+learning_rate=0.1'
    """
    words, exact = {}, True
    for override in overrides:
        text = _value(override.partition("=")[2])
        path = key_of(override)
        shown = path[1:] if path[:1] in (("train",), ("sweep",)) and len(path) > 1 else path
        value = words_of(re.sub(r"\bname: ", "", text).replace(": ", "="), "_.=+-")
        exact = exact and value == text and path[:1] != ("sweep",)
        words[path] = f"{'.'.join(map(str, shown))}={value}", text
    parts = [words[path] for path in sorted(words, key=lambda path: words[path][0])]
    found = "+".join([name, *(shown for shown, _ in parts)])
    if exact:
        return found
    # The hash is needed because other values might give the same words.
    whole = repr(sorted((path, text) for path, (_, text) in words.items()))
    return f"{found}-{hashlib.sha256(whole.encode()).hexdigest()[:4]}"


def _value(text: str) -> str:
    try:
        return flow(parse(text, "").value)
    except UserError:
        return text.strip()
