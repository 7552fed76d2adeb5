"""Leaves out runs of the sweep by the rules of its key `exclude`."""

from typing import Any

from normlab.configs.document import Node, Path, Problem, flow, show
from normlab.configs.overrides import Fixed, full_path
from normlab.configs.run_config import as_label
from normlab.configs.sweep import Point, spelt_out
from normlab.errors import did_you_mean

EXCLUDED = "{norm: instance_norm, batch_size: 1}"
"""An example of what `exclude` lists."""


def leave_out(
    points: list[Point], config: Node, axes: list[str], whole: bool
) -> tuple[list[Point], list[Problem]]:
    """Return the points that no rule leaves out, and every mistake in the rules.

    Args:
        points: the points of the whole sweep.
        config: the config.
        axes: all axes of the sweep.
        whole: whether all of the sweep could be read. If not, a rule that leaves out all points or
            none is no mistake.
    """
    here: Path = ("sweep", "exclude")
    sweep = config.get("sweep")
    if sweep is None or not sweep.has("exclude"):
        return points, []
    given = sweep.value["exclude"]
    if not isinstance(given, list):
        message = (
            "'exclude' must be a list of mappings of axes to values, as in "
            f"[{EXCLUDED}], found {show(given)}"
        )
        return points, [Problem(config.mark_at(here), message)]
    left, problems = points, []
    for index in range(len(given)):
        path = (*here, index)
        rule, found = _rule(config, path, axes)
        if not rule:
            problems += found
            continue
        if whole and not found:
            found = _check_used(config, path, rule, points)
        if rule.keys() <= points[0].values.keys():
            left = [point for point in left if not _meets(point, rule)]
        problems += found
    if whole and not left:
        message = f"this leaves out every run of the sweep, all {len(points)}; keep some"
        return points, [*problems, Problem(config.key_mark_at(here), message)]
    return left, problems


def _rule(config: Node, path: Path, axes: list[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values of the runs that a rule leaves out, by axis, and the rule's mistakes.

    The values are empty if overrides leave the rule nothing to do.
    """
    given = config.at(path).value
    if not isinstance(given, dict) or not given:
        message = (
            "what is excluded must be a mapping of axes to values, as in "
            f"{EXCLUDED}, found {show(given)}"
        )
        return {}, [Problem(config.mark_at(path), message)]
    swept = {full_path(axis): axis for axis in axes}
    sweep = config.at(("sweep",)).value
    fixed = {full_path(axis): v for axis, v in sweep.items() if isinstance(v, Fixed)}
    rule, problems, holds = {}, [], True
    for axis, wanted in given.items():
        meant = full_path(str(axis))
        if meant in swept:
            rule[swept[meant]] = wanted
        elif meant in fixed:
            holds = holds and _is(fixed[meant], str(axis), wanted)
        else:
            hint = did_you_mean(str(axis), axes) if axes else "it has none"
            message = f"the sweep has no axis '{axis}'; {hint}"
            problems.append(Problem(config.key_mark_at((*path, axis)), message))
    # A rule whose axes are all fixed leaves out nothing, because someone asked for just that run.
    return (rule if holds else {}), problems


def _is(fixed: Fixed, axis: str, wanted: Any) -> bool:
    """Return whether an axis is fixed to this value, or to the value with this label."""
    values = fixed.values if isinstance(fixed.values, dict) else {}
    labelled = {as_label(key): value for key, value in values.items()}
    meant = (wanted, labelled.get(as_label(wanted), wanted))
    return spelt_out(axis, fixed.value) in [spelt_out(axis, value) for value in meant]


def _meets(point: Point, rule: dict[str, Any]) -> bool:
    return all(point.has(axis, wanted) for axis, wanted in rule.items())


def _check_used(
    config: Node, path: Path, rule: dict[str, Any], points: list[Point]
) -> list[Problem]:
    """Complain of a rule that leaves out nothing, because that is a slip."""
    if any(_meets(point, rule) for point in points):
        return []
    for axis, wanted in rule.items():
        if not any(point.has(axis, wanted) for point in points):
            values = list(dict.fromkeys(point.label(axis) for point in points))
            shown = ", ".join(values[:10]) + (", ..." if values[10:] else "")
            message = f"'{axis}' is never {flow(wanted)}, so no run is left out; it has {shown}"
            return [Problem(config.mark_at((*path, axis)), message)]
    message = "no run has all of these values together, so none is left out; drop it"
    return [Problem(config.mark_at(path), message)]
