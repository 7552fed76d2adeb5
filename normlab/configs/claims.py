"""Reads the claims of a config, and checks them against its sweep."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from normlab.configs.document import Node, Problem, show
from normlab.configs.evaluations import Planned
from normlab.configs.probes import Inside
from normlab.configs.signatures import describe_type, fields_model, fits, unknown_keys
from normlab.errors import FieldError, UserError
from normlab.measures.claims import Claim, Expectation, Floor, HasArm, arms_of, select
from normlab.measures.evaluated import AFTER, chosen
from normlab.measures.measures import ASKED_FOR, METRICS, Measure
from normlab.measures.probe_values import END, check_reduction, find
from normlab.measures.value import NoValueError


class PlannedRun(NamedTuple):
    """A run of the sweep before it is made, as claims see it."""

    arm: str
    seed: int
    axes: dict[str, Any]
    inside: Inside | None = None
    planned: Planned | None = None


ARMS = ("left", "right", "across")
"""The fields of a claim that a config writes below the key `compare`."""


def keys() -> dict[str, bool]:
    """Return the keys of a claim in a config, each with whether it is needed.

    >>> list(keys())
    ['says', 'measure', 'compare', 'expect', 'floor', 'paired', 'source', 'unit', 'generalise']
    """
    found = {}
    for name, field in fields_model(Claim).model_fields.items():
        found.setdefault("compare" if name in ARMS else name, field.is_required())
    return found


def read_claims(
    config: Node, points: list[PlannedRun], metrics: Iterable[str], lenient: bool
) -> tuple[list[Claim], list[Problem]]:
    """Return the claims of a config, or everything that is wrong with them.

    Args:
        config: the config.
        points: the runs of its sweep; without any, the arms and axes of claims are not checked.
        metrics: the metrics that the runs will have.
        lenient: whether claims may speak of arms that are not there. A command may make a part of
            an experiment's runs, and all claims are still registered before they begin.
    """
    given = config.get("claims")
    if given is None or given.content is None:
        return [], []
    if not isinstance(given.content, list):
        message = f"'claims' must be a list of claims, found {show(given.value)}"
        return [], [Problem(given.mark, message)]
    claims, problems = [], []
    for part in given.content:
        claim, found = _read_claim(part)
        if claim is not None and points:
            found = [] if lenient else _check_against(claim, part, points, metrics)
        problems += found
        claims += [claim] if claim is not None and not found else []
    return claims, problems


def _read_claim(part: Node) -> tuple[Claim | None, list[Problem]]:
    value = part.value
    known, fields = keys(), fields_model(Claim).model_fields
    if not isinstance(value, dict):
        message = f"a claim is a mapping with the keys {', '.join(known)}, found {show(value)}"
        return None, [Problem(part.mark, message)]
    problems = unknown_keys(part, known, "a claim")
    for key, needed in known.items():
        if needed and key not in value:
            problems.append(Problem(part.mark, f"the claim needs the key '{key}'"))
        elif key in value and key != "compare" and not fits(fields[key].annotation, value[key]):
            wanted = describe_type(fields[key].annotation)
            message = f"claim: '{key}' must be {wanted}, found {show(value[key])}"
            problems.append(Problem(part.mark_at((key,)), message))
    compare = value.get("compare", {"left": ""})
    shaped = isinstance(compare, dict) and "left" in compare and compare.keys() <= set(ARMS)
    if not shaped or not all(isinstance(s, str | dict) and s for s in compare.values() if s != ""):
        message = "claim: 'compare' is written as in {left: batch_norm, right: identity}"
        problems.append(Problem(part.mark_at(("compare",)), f"{message}, found {show(compare)}"))
    for key, parse in (("measure", Measure.parse), ("expect", Expectation.parse),
                       ("floor", Floor.parse)):  # fmt: skip
        if isinstance(value.get(key), str):
            try:
                parse(value[key])
            except UserError as error:
                problems.append(Problem(part.mark_at((key,)), f"claim: {error}"))
    if problems:
        return None, problems
    rest = {key: value[key] for key in value if key != "compare"}
    rest |= {"across": compare["across"]} if "across" in compare else {}
    try:
        claim = Claim(left=compare["left"], right=compare.get("right"), **rest)
        claim.check_arms()
    except UserError as error:
        key = error.field if isinstance(error, FieldError) else "compare"
        return None, [Problem(part.mark_at((key,)), f"claim: {error}")]
    return claim, []


def _check_against(
    claim: Claim, part: Node, points: list[PlannedRun], metrics: Iterable[str]
) -> list[Problem]:
    measures = {"measure": claim.measured}
    if claim.threshold is not None:
        measures["floor"] = claim.threshold.measure
    problems = []
    for key, measure in measures.items():
        try:
            check_measure(measure, points, metrics)
            if key == "floor" and measure.axis is not None:
                raise UserError("a floor is a measure of single runs")
        except UserError as error:
            problems.append(Problem(part.mark_at((key,)), f"claim: {error}"))
    if (claim.across is not None or claim.unit is not None) and not problems:
        return _check_arms(claim, part, points)
    for side in ("left", "right"):
        selector = getattr(claim, side)
        if selector is not None and not problems:
            try:
                select(points, selector, claim.measured.axis)
            except UserError as error:
                problems.append(Problem(part.mark_at(("compare", side)), f"claim: {error}"))
    return problems


def _check_arms(claim: Claim, part: Node, points: list[PlannedRun]) -> list[Problem]:
    """Check that all arms of a claim across an axis, or of units, are in the sweep."""
    try:
        arms_of(points, claim)
    except UserError as error:
        key = error.field if isinstance(error, FieldError) else "compare"
        return [Problem(part.mark_at((key,)), f"claim: {error}")]
    return []


def recorded_metrics(config: Node) -> list[str]:
    """Return the metrics that the runs of a config will have."""
    held_out, given = config.find(("data", "validation")), config.find(("train", "metrics"))
    validated = held_out is not None and held_out.content is not None
    # The check of the section `train` complains of metrics that are no list.
    asked = given.value if given is not None and isinstance(given.content, list) else []
    return [
        metric
        for metric in METRICS
        if (validated or not metric.startswith("val_"))
        and (metric not in ASKED_FOR or metric.partition("_")[2] in asked)
    ]


def check_measure(measure: Measure, points: Iterable[HasArm], metrics: Iterable[str]) -> None:
    """Check that runs like these can have a measure.

    Raises:
        UserError: they lack a metric or an axis that it names.
    """
    lacking = [metric for metric in measure.metrics if metric not in metrics]
    if lacking:
        part, _, name = lacking[0].partition("_")
        if part == "val" and not any(metric.startswith("val_") for metric in metrics):
            raise UserError(
                f"{measure}: there is no '{lacking[0]}' without examples held out; "
                "give data.validation their number"
            )
        raise UserError(f"{measure}: there is no '{lacking[0]}'; add {name} to train.metrics")
    axis = measure.axis
    if "quantity" in measure.definition.takes:
        check_probe(measure, points)
    if "policy" in measure.definition.takes:
        check_evaluated(measure, points)
    if axis is None:
        return
    values = [point.axes.get(axis) for point in points]
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values):
        axes = list(dict.fromkeys(axis for point in points for axis in point.axes))
        raise UserError(
            f"{measure}: '{axis}' must be an axis of the sweep whose values are positive numbers; "
            f"the axes are {', '.join(axes)}"
        )


def check_evaluated(measure: Measure, points: Iterable[HasArm]) -> None:
    """Check that runs like these will have the evaluation that a measure names.

    Raises:
        UserError: a run will not have it; the message says why.
    """
    for point in points:
        planned = getattr(point, "planned", None)
        try:
            if not measure.arguments[0].startswith("test_"):
                raise NoValueError("is evaluated on the test examples: name a metric of those")
            takes = measure.definition.takes
            policies, words = measure.arguments[1 : len(takes)], measure.arguments[len(takes) :]
            for policy in policies:
                chosen(planned.judged if planned is not None else (), (policy, *words))
        except NoValueError as error:
            raise UserError(f"{measure}: a run of '{point.arm}' {error}") from None


def check_probe(measure: Measure, points: Iterable[HasArm]) -> None:
    """Check that runs like these will record the quantity that a measure names.

    Raises:
        UserError: a run will not record it; the message says why.
    """
    quantity, *rest = measure.arguments
    step, how = (rest[0], rest[1:]) if measure.name == "probe" else (None, rest)
    for point in points:
        inside = getattr(point, "inside", None)
        try:
            if inside is None:
                raise NoValueError("is made without probes: give the section 'probes'")
            every = {(q.probe, q.name): q for q in inside.quantities}
            found = every[find(quantity, every)]
            if step is None and len(inside.steps) < 2:
                raise NoValueError("is looked into once: give probes.at or probes.every more steps")
            after = AFTER in found.probe
            if after and step != END:
                raise NoValueError(f"is looked into after its evaluations once: write {END}")
            wanted = inside.total if step == END else step
            if step is not None and not after and wanted not in inside.steps:
                raise NoValueError(f"is not looked into before step {step}: add it to probes.at")
            check_reduction(quantity, "".join(how), found.layers, found.shape)
        except NoValueError as error:
            raise UserError(f"{measure}: a run of '{point.arm}' {error}") from None
