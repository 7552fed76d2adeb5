"""Chooses the arm that each arm is compared with: one for all, or one for each setting."""

from collections.abc import Collection, Mapping
from typing import Any

from normlab.errors import UserError, did_you_mean

CHOICES = ("norm", "kernel", "placement")
"""Axes whose values an experiment compares; its other axes are the settings of the comparison."""

Axes = Mapping[str, Any]


def baselines(
    arms: Mapping[str, Axes], wanted: str | None, diverged: Collection[str] = ()
) -> tuple[str, dict[str, str]]:
    """Return the baseline in words, and for each arm the name of its baseline.

    A normaliser in one network is compared with the baseline in that network. A sweep over several
    axes therefore has a baseline for each setting of the axes outside `CHOICES`.

    Args:
        arms: for each arm its place on the sweep's axes; not empty.
        wanted: an arm's name or a value of an axis. A name makes that arm the baseline of all; a
            value makes every arm with it a baseline. None takes the values of `CHOICES` of the
            first arm that did not diverge.
        diverged: the arms with mostly diverged runs.

    Raises:
        UserError: no arm has this name or value, or some setting has no such arm.

    >>> arms = {"a, x": {"model": "a", "norm": "x"}, "a, y": {"model": "a", "norm": "y"},
    ...         "b, x": {"model": "b", "norm": "x"}, "b, y": {"model": "b", "norm": "y"}}
    >>> baselines(arms, None)[1]
    {'a, x': 'a, x', 'a, y': 'a, x', 'b, x': 'b, x', 'b, y': 'b, x'}
    >>> baselines({"lr=1": {"lr": 1}, "lr=2": {"lr": 2}}, None)
    ('lr=1', {'lr=1': 'lr=1', 'lr=2': 'lr=1'})
    >>> baselines(arms, "a, x") == ("a, x", dict.fromkeys(arms, "a, x"))
    True
    >>> baselines({"a": {}, "b": {}}, None, diverged={"a"})
    ('b', {'a': 'b', 'b': 'b'})
    """
    first = next((name for name in arms if name not in diverged), next(iter(arms)))
    if wanted is None:
        choices = [axis for axis in CHOICES if axis in arms[first]]
        chosen = {axis: arms[first][axis] for axis in choices}
        found = _within_settings(arms, chosen)
        lone = all(name == base for name, base in found.items())
        if lone or len(set(found.values())) < 2 or len(found) < len(arms):
            return first, dict.fromkeys(arms, first)
        return ", ".join(map(str, chosen.values())), found
    if wanted in arms:
        return wanted, dict.fromkeys(arms, wanted)
    bearers = [name for name, axes in arms.items() if wanted in map(str, axes.values())]
    if len(bearers) == 1:
        return bearers[0], dict.fromkeys(arms, bearers[0])
    if not bearers:
        raise UserError(f"no arm is called '{wanted}'; {did_you_mean(wanted, arms)}")
    axis = next(axis for axis, value in arms[bearers[0]].items() if str(value) == wanted)
    found = _within_settings(arms, {axis: arms[bearers[0]][axis]})
    lone = [name for name in arms if name not in found]
    if lone:
        raise UserError(
            f"'{wanted}' is {' or '.join(bearers)}, none of them in the setting of '{lone[0]}'; "
            "name one whole arm"
        )
    return wanted, found


def _within_settings(arms: Mapping[str, Axes], chosen: Axes) -> dict[str, str]:
    """Find for each arm the arm with the chosen values that is like it in all else."""

    def setting(axes: Axes) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((a, str(value)) for a, value in axes.items() if a not in chosen))

    having: dict[Any, str] = {}
    for name, axes in arms.items():
        if all(axes.get(axis) == value for axis, value in chosen.items()):
            having.setdefault(setting(axes), name)
    places = {name: setting(axes) for name, axes in arms.items()}
    return {name: having[place] for name, place in places.items() if place in having}
