"""What a sweep leaves out: `exclude: [{norm: instance_norm, batch_size: 1}]`."""

from typing import Any

from normlab.configs.document import Document, Path, Problem, flow
from normlab.configs.overrides import Fixed, full_path
from normlab.configs.run_config import as_label
from normlab.configs.signatures import show
from normlab.configs.sweep import Point, spelt_out
from normlab.errors import did_you_mean

EXAMPLE = "{norm: instance_norm, batch_size: 1}"

Rule = dict[str, Any]
"""By axis, the values that a run must all have to be left out."""


def leave_out(
    points: list[Point], document: Document, axes: list[str], whole: bool
) -> tuple[list[Point], list[Problem]]:
    """The points that no rule leaves out, and every mistake in the rules.

    Args:
        points: of the whole sweep.
        document: the config.
        axes: all axes of the sweep.
        whole: whether all of the sweep could be read; otherwise no rule is blamed for what it
            leaves out.
    """
    sweep = document.value.get("sweep")
    given = sweep.get("exclude") if isinstance(sweep, dict) else None
    if given is None:
        return points, []
    here: Path = ("sweep", "exclude")
    if not isinstance(given, list):
        message = (
            "'exclude' must be a list of mappings of axes to values, as in "
            f"[{EXAMPLE}], found {show(given)}"
        )
        return points, [Problem(document.mark(here), message)]
    left, problems = points, []
    for index in range(len(given)):
        path = (*here, index)
        rule, found = _rule(document, path, axes)
        if not rule:
            problems += found
            continue
        if whole and not found:
            found = _check_used(document, path, rule, points)
        if rule.keys() <= points[0].values.keys():
            left = [point for point in left if not _meets(point, rule)]
        problems += found
    if whole and not left:
        message = f"this leaves out every run of the sweep, all {len(points)}; keep some"
        return points, [*problems, Problem(document.key_mark(here), message)]
    return left, problems


def _rule(document: Document, path: Path, axes: list[str]) -> tuple[Rule, list[Problem]]:
    """The rule at `path`, of axes still swept; empty if overrides leave nothing for it to do."""
    given = document.part(path).value
    if not isinstance(given, dict) or not given:
        message = (
            "what is excluded must be a mapping of axes to values, as in "
            f"{EXAMPLE}, found {show(given)}"
        )
        return {}, [Problem(document.mark(path), message)]
    swept = {full_path(axis): axis for axis in axes}
    sweep = document.value["sweep"]
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
            problems.append(Problem(document.key_mark((*path, axis)), message))
    # A rule of which no axis is left was overridden: someone wants just that run.
    return (rule if holds else {}), problems


def _is(fixed: Fixed, axis: str, wanted: Any) -> bool:
    """Whether what an axis is fixed to is this value, or was called so."""
    values = fixed.values if isinstance(fixed.values, dict) else {}
    named = {as_label(key): value for key, value in values.items()}.get(as_label(wanted), wanted)
    return spelt_out(axis, fixed.value) in (spelt_out(axis, wanted), spelt_out(axis, named))


def _meets(point: Point, rule: Rule) -> bool:
    return all(point.has(axis, wanted) for axis, wanted in rule.items())


def _check_used(document: Document, path: Path, rule: Rule, points: list[Point]) -> list[Problem]:
    """A rule that leaves out nothing is a slip."""
    if any(_meets(point, rule) for point in points):
        return []
    for axis, wanted in rule.items():
        if not any(point.has(axis, wanted) for point in points):
            values = list(dict.fromkeys(point.label(axis) for point in points))
            shown = ", ".join(values[:10]) + (", ..." if values[10:] else "")
            message = f"'{axis}' is never {flow(wanted)}, so no run is left out; it is {shown}"
            return [Problem(document.mark((*path, axis)), message)]
    message = "no run has all of these values together, so none is left out; drop it"
    return [Problem(document.mark(path), message)]
