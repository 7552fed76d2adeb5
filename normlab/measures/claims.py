"""Defines claims: sentences that runs decide by a rule, which is registered before the first step.

    claims:
      - says: batch normalisation needs at most half the steps
        measure: steps_to(test_accuracy, 0.6)
        compare: {left: batch_norm, right: identity}
        expect: ratio <= 0.5

A claim may also compare two differences: `compare: {left: batch_norm, right: identity, across:
optimizer}` asks whether the difference between the two is another under the other optimiser.

`unit: data.test_speakers` makes the values of an axis the units of replication: each speaker counts
once, by the mean over the seeds, and the interval speaks of other speakers.

`generalise: [seeds, images]` lets a claim on accuracy be decided by the interval that speaks of new
test images as well as of new seeds.

A claim is judged by an interval: it is supported, refuted or undecided. A run notes the hashes of
the claims that stood when it began, so that a later claim is recognised.
"""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from normlab.errors import FieldError, UserError, did_you_mean
from normlab.measures.measures import Measure
from normlab.store.files import DamagedError

Quantity = Literal["difference", "ratio", "mean"]

Noise = Literal["seeds", "images", "tuning"]
"""What an interval can speak of: what it would be with others of these."""

OF_IMAGES = "final(test_accuracy)"
"""The measure that the stored answers of a run give, image by image."""


@dataclass(frozen=True)
class Expectation:
    """The region in which a claim expects its quantity; either end may be infinite.

    Attributes:
        quantity: "difference", "ratio" or "mean".
        low: the region's lower end.
        high: its upper end.
        text: the expectation as it is written.
        strict: whether the ends themselves lie outside, as in "difference > 0".
        outside: whether the quantity is expected outside the region, as in "differs by more than
            0.01".

    >>> at_most = Expectation.parse("ratio <= 0.5")
    >>> at_most.low, at_most.high, at_most.strict
    (-inf, 0.5, False)
    >>> at_most.outcome(0.0, 0.5), at_most.outcome(0.5, 0.7), at_most.outcome(0.6, 0.7)
    ('supported', None, 'refuted')
    >>> other = Expectation.parse("differs by more than 0.01")
    >>> other.outcome(0.02, 0.03), other.outcome(0.0, 0.03), other.outcome(0.0, 0.01)
    ('supported', None, 'refuted')
    """

    quantity: Quantity
    low: float
    high: float
    text: str
    strict: bool = False
    outside: bool = False

    def outcome(self, low: float, high: float) -> Literal["supported", "refuted"] | None:
        """Judge a closed interval: wholly inside the region, wholly outside, or neither."""
        inside, outside = self.sides(low, high)
        return "supported" if inside else "refuted" if outside else None

    def sides(self, low: Any, high: Any) -> tuple[Any, Any]:
        """Return whether closed intervals support the expectation, and whether they refute it.

        Every verdict compares here and nowhere else.

        Args:
            low: the lower end of an interval, or an array of them.
            high: the upper ends, likewise.

        >>> Expectation.parse("difference > 0").sides(0.1, 0.3)
        (True, False)
        """
        inside = _beyond(low, self.low, self.strict) & _beyond(-high, -self.high, self.strict)
        outside = _beyond(low, self.high, not self.strict) | _beyond(
            -high, -self.low, not self.strict
        )
        return (outside, inside) if self.outside else (inside, outside)

    def bounds(self, estimate: float) -> list[float]:
        """Return the ends that an interval around the estimate must exclude to decide the claim.

        >>> Expectation.parse("matches within 0.1").bounds(0.02)
        [-0.1, 0.1]
        >>> Expectation.parse("matches within 0.1").bounds(0.3)
        [0.1]
        """
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        if self.low <= estimate <= self.high:
            return ends
        return [min(ends, key=lambda end: abs(end - estimate))] if ends else []

    @classmethod
    def parse(cls, text: str) -> "Expectation":
        """Read an expectation: a bound of a quantity, or a margin around a difference of 0.

        Bounds are `difference >= 0.01`, `ratio <= 0.5` and `mean >= 0.6`, with `<`, `<=`, `>` or
        `>=`. Margins are `matches within 0.01` and `differs by more than 0.01`.

        Raises:
            UserError: the text is none of these.
        """
        words = " ".join(text.split())
        number = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
        compared = re.fullmatch(rf"(difference|ratio|mean) ?(<=?|>=?) ?{number}", words)
        matches = re.fullmatch(rf"matches within {number}", words)
        differs = re.fullmatch(rf"differs by more than {number}", words)
        try:
            if compared:
                bound = float(compared[3])
                below = compared[2].startswith("<")
                ends = (-float("inf"), bound) if below else (bound, float("inf"))
                strict = not compared[2].endswith("=")
                return cls(compared[1], *ends, words, strict)  # type: ignore[arg-type]
            if matches and (margin := float(matches[1])) > 0:
                return cls("difference", -margin, margin, words)
            if differs and (margin := float(differs[1])) >= 0:
                return cls("difference", -margin, margin, words, outside=True)
        except ValueError:  # such as 1.2.3
            pass
        allowed = (
            "difference >= 0.01, ratio <= 0.5, mean >= 0.6, matches within 0.01 or "
            "differs by more than 0.01"
        )
        raise UserError(f"an expectation is written as in {allowed}, found '{text}'")


def _beyond(end: Any, bound: float, strict: bool) -> Any:
    """Return whether numbers are above another, or equal where that is enough.

    Equality with an infinite bound is always enough, because no number can pass infinity.
    """
    enough = not (strict and math.isfinite(bound))
    return end >= bound if enough else end > bound


@dataclass(frozen=True)
class Floor:
    """The bound that an arm must have reached for a claim about it to be decided.

    Attributes:
        measure: the measure that is taken of every run.
        bound: the value that the mean of one of the arms must reach.
        at_least: whether the mean must be at least the bound; if not, at most the bound.

    >>> floor = Floor.parse("final(test_accuracy) >= 0.3")
    >>> str(floor.measure), floor.bound, floor.at_least
    ('final(test_accuracy)', 0.3, True)
    """

    measure: Measure
    bound: float
    at_least: bool

    @classmethod
    def parse(cls, text: str) -> "Floor":
        """Read a floor.

        Raises:
            UserError: the text is no measure with `>=` or `<=` and a number.
        """
        match = re.fullmatch(r"(.*?)\s*(<=|>=)\s*([-+0-9.eE]+)", text.strip())
        if match:
            measure = Measure.parse(match[1])
            with contextlib.suppress(ValueError):  # such as 1.2.3
                return cls(measure, float(match[3]), match[2] == ">=")
        raise UserError(f"a floor is written as in final(test_accuracy) >= 0.3, found '{text}'")


class HasArm(Protocol):
    """A run of the sweep, planned or made."""

    @property
    def arm(self) -> str:
        """The name of its arm."""
        ...

    @property
    def seed(self) -> int:
        """Its seed."""
        ...

    @property
    def axes(self) -> dict[str, Any]:
        """Its value on every axis but the seed."""
        ...


Selector = str | dict[str, Any]

Across = str | dict[str, list[Any]]


@dataclass(frozen=True)
class Claim:
    """One sentence, and the rule that decides it.

    Attributes:
        says: the sentence.
        measure: the measure that is taken of every run.
        left: the arm that the claim is about: its name, or its label on one axis, or a mapping of
            axes to values.
        right: the arm that it is compared with, written as `left` is; null if `expect` is about a
            mean alone.
        expect: the region in which the difference (left minus right), the ratio (left to right)
            or the mean must lie.
        floor: a bound such as `final(test_accuracy) >= 0.3`. If no compared arm's mean reaches it,
            the arms have not learned enough for the claim to be decided.
        paired: whether the arms' runs are paired by seed. null pairs them if runs of one seed share
            data, model and training, because they then begin alike and see the same batches.
        source: the paper or thread that the claim comes from.
        across: an axis with two values, as in `optimizer`, or an axis with the two of its labels
            that are meant, as in {optimizer: [muon, sgd]}. The claim is then about the difference
            left minus right at the first of them, minus that difference at the second.
        unit: an axis, such as `data.test_speakers`, whose values are the units of replication. Each
            unit counts once, by its mean over the seeds, so that the interval speaks of new
            speakers, patients or folds, and not of new seeds. null if each seed is a unit.
        generalise: what the interval that decides speaks of: [seeds, images] means new test images
            as well as new seeds, for which the runs' stored answers are needed, and tuning means
            a new choice by tuning, for which several tuning seeds are needed. null means seeds.
    """

    says: str
    measure: str
    left: Selector
    right: Selector | None
    expect: str
    floor: str | None = None
    paired: bool | None = None
    source: str | None = None
    across: Across | None = None
    unit: str | None = None
    generalise: list[Noise] | None = None

    def __post_init__(self) -> None:
        for field, parsed in (("measure", "measured"), ("expect", "expectation"),
                              ("floor", "threshold")):  # fmt: skip
            try:
                getattr(self, parsed)
            except UserError as error:
                raise FieldError(field, str(error)) from None

    def check_arms(self) -> None:
        """Check that the claim names as many arms as its expectation is about.

        Raises:
            FieldError: it names one too few or one too many.
        """
        if (self.expectation.quantity == "mean") != (self.right is None):
            message = "a mean is that of 'left' alone; a difference or ratio needs 'right' too"
            raise FieldError("compare", message)
        if self.unit is not None and self.unit == self.measured.axis:
            raise FieldError("unit", f"the measure is taken over '{self.unit}' already")
        self._check_generalise()
        if self.across is None:
            return
        if self.expectation.quantity != "difference":
            message = "a claim across an axis is about a difference, and 'expect' must be too"
            raise FieldError("compare", message)
        two = isinstance(self.across, str) and self.across
        if isinstance(self.across, dict) and len(self.across) == 1:
            (labels,) = self.across.values()
            two = isinstance(labels, list) and len(labels) == 2 and labels[0] != labels[1]
        if not two:
            raise FieldError("compare", f"{ACROSS}, found {self.across!r}")

    def _check_generalise(self) -> None:
        """Check that an interval can speak of what the claim wants to generalise to."""
        wanted = self.generalise
        if wanted is None:
            return
        message = ""
        unknown = {*wanted} - {*get_args(Noise)}
        if unknown or "seeds" not in wanted or len({*wanted}) < len(wanted):
            message = "it names seeds, and images or tuning beside them, each once"
        elif self.unit is not None:
            message = "the claim has a 'unit', which is what its interval speaks of: keep one"
        elif self.expectation.quantity == "ratio" and len(wanted) > 1:
            message = "a ratio speaks of seeds alone: claim a difference or a mean"
        elif "images" in wanted and str(self.measured) != OF_IMAGES:
            message = f"answers are stored of the last evaluation, so images need {OF_IMAGES}"
        if message:
            raise FieldError("generalise", f"'generalise': {message}")

    def kept(self) -> dict[str, Any]:
        """Return the fields as files keep them; those that came later only if they are used."""
        return {k: v for k, v in asdict(self).items() if k not in LATER or v is not None}

    @property
    def hash(self) -> str:
        """Ten hex digits that change with any word of the claim."""
        text = json.dumps(self.kept(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @cached_property
    def measured(self) -> Measure:
        """The measure that `measure` names."""
        return Measure.parse(self.measure)

    @cached_property
    def expectation(self) -> Expectation:
        """The region that `expect` names."""
        return Expectation.parse(self.expect)

    @cached_property
    def threshold(self) -> Floor | None:
        """The bound that `floor` names, if there is one."""
        return None if self.floor is None else Floor.parse(self.floor)

    @property
    def selectors(self) -> list[Selector]:
        """The selectors of one arm or of two: `left`, and `right` where it is given."""
        return [self.left] if self.right is None else [self.left, self.right]


LATER = ("across", "unit", "generalise")
"""Fields that came after the first claims were registered, whose hashes must stay."""

ACROSS = "'across' is an axis with two values, or an axis with two of its labels: {norm: [a, b]}"


def read_claim(kept: dict[str, Any], file: Path) -> Claim:
    """Read a claim that a file of an experiment's folder keeps.

    Raises:
        DamagedError: this version of normlab cannot judge it.
    """
    unknown = kept.keys() - {field.name for field in fields(Claim)}
    try:
        if unknown:
            raise UserError(f"it has no key '{min(unknown)}'")
        claim = Claim(**kept)
        claim.check_arms()
    except UserError as error:
        mend = "restore it from a copy, or judge the claim with the normlab that wrote it"
        raise DamagedError(file, f"claim '{kept['says']}': {error}", mend) from None
    return claim


def name_of(selector: Selector) -> str:
    """Return a name for the arm that is selected.

    >>> name_of({"norm": "batch_norm", "batch_size": 2})
    'batch_norm, batch_size=2'
    """
    if isinstance(selector, str):
        return selector
    return ", ".join(v if isinstance(v, str) else f"{a}={v}" for a, v in selector.items())


P = TypeVar("P", bound=HasArm)


def select(
    points: Iterable[P], selector: Selector, axis: str | None = None, unit: str | None = None
) -> list[P]:
    """Return the runs of one arm.

    Args:
        points: the runs of the sweep.
        selector: an arm's name, or the label of one axis, or a mapping of axes to labels.
        axis: an axis in which they may differ, because the measure is taken over it.
        unit: an axis whose values are the units of the claim. The arm has one setting in each unit,
            and another axis may vary with the unit, as `zip` has it.

    Raises:
        UserError: there are no such runs, or they are of several arms.
    """
    every = list(points)
    if isinstance(selector, str):
        chosen = [p for p in every if p.arm == selector]
        chosen = chosen or [p for p in every if selector in map(str, p.axes.values())]
    else:
        chosen = [p for p in every if selector.items() <= p.axes.items()]
    if not chosen:
        arms = ", ".join(f"'{arm}'" for arm in dict.fromkeys(p.arm for p in every))
        raise UserError(f"no arm is called '{name_of(selector)}'; the arms are {arms}")
    settings: dict[str, dict[str, str]] = {}
    for point in chosen:
        own = {name: label for name, label in point.axes.items() if name not in (axis, unit)}
        place = "" if unit is None else label_of(point.axes.get(unit))
        settings.setdefault(place, {})[json.dumps(own)] = point.arm
    several = max(settings.values(), key=len)
    if len(several) > 1:
        arms = ", ".join(f"'{arm}'" for arm in list(several.values())[:4])
        raise UserError(
            f"'{name_of(selector)}' is several arms ({arms}); say which, as in "
            "{norm: batch_norm, batch_size: 32}"
        )
    return chosen


def label_of(value: Any) -> str:
    """Write the value of an axis as a text that tells it from the others.

    >>> label_of("george"), label_of(["george", "theo"])
    ('george', 'george, theo')
    """
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def arms_of(points: Iterable[P], claim: Claim) -> list[tuple[str, list[P]]]:
    """Return the name and the runs of each arm that a claim is about: one, two or four.

    Across an axis the order is left and right at the first value, then left and right at the
    second.

    Raises:
        UserError: an arm is not there, or the axis of `across` is not, or has not two values.
    """
    every, axis, unit = list(points), claim.measured.axis, claim.unit
    if claim.unit is not None and any(claim.unit not in point.axes for point in every):
        axes = list(dict.fromkeys(axis for point in every for axis in point.axes))
        message = f"'unit' names no axis '{claim.unit}'; {did_you_mean(claim.unit, axes)}"
        raise FieldError("unit", message)
    if claim.across is None:
        return [(name_of(one), select(every, one, axis, unit)) for one in claim.selectors]
    across, labels = _two_of(every, claim.across)
    return [
        (f"{name_of(one)} at {across}={label}", select(own, one, axis, unit))
        for label in labels
        if (own := [point for point in every if point.axes[across] == label])
        for one in claim.selectors
    ]


def _two_of(points: list[P], across: Across) -> tuple[str, list[Any]]:
    """Return the axis that `across` names, and the two of its labels that are meant."""
    name, wanted = (across, None) if isinstance(across, str) else next(iter(across.items()))
    axes = list(dict.fromkeys(axis for point in points for axis in point.axes))
    if not points or any(name not in point.axes for point in points):
        raise UserError(f"'across' names no axis '{name}'; {did_you_mean(name, axes)}")
    labels = list(dict.fromkeys(point.axes[name] for point in points))
    shown = ", ".join(map(str, labels))
    if wanted is None and len(labels) != 2:
        raise UserError(
            f"'across' compares two values of '{name}', which has {len(labels)} ({shown}); "
            f"say which two, as in {{{name}: [{labels[0]}, {labels[-1]}]}}"
        )
    missing = [label for label in wanted or [] if label not in labels]
    if missing:
        raise UserError(f"'{name}' is never {missing[0]}; it has {shown}")
    return name, wanted or labels
