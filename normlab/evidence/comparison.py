"""Compares the arms of an experiment, each with one baseline."""

import contextlib
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from normlab.errors import UserError
from normlab.evidence import caveats
from normlab.evidence.audit import audit
from normlab.evidence.baselines import baselines
from normlab.evidence.contrasts import contrast, mean_of
from normlab.evidence.doubts import warnings
from normlab.evidence.estimates import IntervalEstimate
from normlab.evidence.generalising import OtherNoise
from normlab.evidence.inference import holm, permutation_p, probability_better, sampling_error
from normlab.evidence.intervals import (
    EVERYTHING,
    LEAST_FOR_BOOTSTRAP,
    Interval,
    bootstrap,
    interquartile_mean,
    interquartile_mean_interval,
)
from normlab.evidence.remarks import read_remarks
from normlab.evidence.samples import Sample, sample
from normlab.evidence.verdicts import Verdict, judge
from normlab.measures.measures import PRICES, USUAL_MEASURE, Measure
from normlab.measures.value import NoValueError
from normlab.store.record import Record, axes_of, setting_words
from normlab.store.runs import Runs
from normlab.store.seeds import seed_text


@dataclass(frozen=True, eq=False, repr=False)
class Arm:
    """One arm of an experiment.

    Attributes:
        name: its name.
        records: its runs.
        baseline: the name of the arm that it is compared with; its own, if it is a baseline.
        sample: the runs' values of the comparison's measure.
        mean: the mean of the values, with its interval.
        difference: the difference to the baseline; None for the baseline itself.
        ratio: the ratio to the baseline; None for the baseline itself.
        better: the chance that a run of this arm beats one of the baseline.
        p: the p-value of the permutation test against the baseline.
        holm: the same, corrected for all the arms that are compared with a baseline.
        prices: the median over the runs of each price that is known.
        to_target: steps and seconds to the config's target, if it has one.
    """

    name: str
    records: list[Record]
    baseline: str
    sample: Sample
    mean: IntervalEstimate
    difference: IntervalEstimate | None
    ratio: IntervalEstimate | None
    better: float
    p: float
    holm: float
    prices: dict[str, float]
    to_target: tuple[Sample, ...] = ()

    def __repr__(self) -> str:
        mean = self.mean.estimate
        return (
            f"<Arm {self.name}: {len(self.sample)} of {self.sample.planned} runs, mean {mean:.3g}>"
        )

    @property
    def middle(self) -> float:
        """The interquartile mean; NaN without values, or with censored ones."""
        known = len(self.sample) > 0 and not self.sample.censored.any()
        return interquartile_mean(self.sample.values) if known else float("nan")

    @property
    def middle_interval(self) -> Interval:
        """The interval of the interquartile mean."""
        known = not self.sample.censored.any() and not self.sample.crossed
        return interquartile_mean_interval(self.sample.values) if known else EVERYTHING

    @property
    def bootstrap(self) -> Interval:
        """The BCa interval of the mean where there are values enough for it, else unbounded."""
        own = self.sample
        enough = len(own) >= LEAST_FOR_BOOTSTRAP and not own.censored.any()
        enough = enough and not own.crossed
        return bootstrap(own.values) if enough else EVERYTHING

    @property
    def distinguished(self) -> bool:
        """Return whether the interval of the difference to the baseline leaves zero outside."""
        if self.difference is None:
            return False
        low, high = self.difference.interval
        return low > 0 or high < 0


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The arms of an experiment, each against its baseline, by one measure.

    Attributes:
        runs: the experiment.
        measure: the measure that the arms are compared by.
        baseline: the name of the arm that the others are compared with. If each setting of a sweep
            has its own baseline, it is the value that these share, such as "identity".
        arms: in the experiment's order, those of one setting together.
        records: all its runs.
    """

    runs: Runs
    measure: Measure
    baseline: str
    arms: list[Arm]
    records: list[Record]

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.arms)} arms with {self.against} by {self.measure}>"

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the experiment's claims."""
        return judge(self.runs, self.records)

    @cached_property
    def other_noise(self) -> OtherNoise:
        """What the experiment shows of noise that seeds do not show."""
        return OtherNoise(self.runs)

    @property
    def target(self) -> float | None:
        """The test accuracy to which steps and seconds are counted, if the config has one."""
        return _target_of(self.runs)

    @cached_property
    def warnings(self) -> list[str]:
        """The reasons why the comparison may say less than it seems to."""
        known = caveats.warnings(self.records, self.measure.name, self.measure.metrics)
        known += caveats.left_out(self.runs.former)
        known += audit(self.runs)
        for part in self.runs.parts:
            beware = read_remarks(part.path).beware
            known += [f"{part.about['name']}: {beware}"] if beware else []
        return known + warnings(self.measure, [arm.sample for arm in self.arms])

    @property
    def question(self) -> str | None:
        """The question of the experiment."""
        return self.runs.about.get("question")

    @cached_property
    def test_noise(self) -> float | None:
        """The standard error of the best arm's accuracy that the choice of test examples causes."""
        finished = [record for record in self.records if record.finished]
        name = "test_accuracy"
        if self.measure.metrics != (name,) or self.measure.definition.unit or not finished:
            return None
        top = max((arm.mean.estimate for arm in self.arms if arm.sample.complete), default=0.5)
        return sampling_error(min(max(top, 0.0), 1.0), finished[0].data["test_examples"])

    @property
    def against(self) -> str:
        """The baseline, as a sentence names it."""
        several = len({arm.baseline for arm in self.arms}) > 1
        return f"{self.baseline} in the same setting" if several else self.baseline

    def arm(self, name: str) -> Arm:
        """Find an arm by its name."""
        return next(arm for arm in self.arms if arm.name == name)


def compare(
    runs: Runs | Sequence[Runs],
    *,
    baseline: str | None = None,
    measure: str = USUAL_MEASURE,
) -> Comparison:
    """Compare the arms of an experiment with one of them, or with one in each setting.

    Args:
        runs: an experiment from `normlab.load` or `normlab.run`; a list of them is compared as
            their sum.
        baseline: an arm's name, or a value of an axis. By default it is the one that the config
            names, or else the first arm that did not diverge. In a sweep over several axes that
            arm's normaliser is the baseline of each setting.
        measure: the measure to compare, such as `steps_to(test_accuracy, 0.6)`.

    Raises:
        UserError: there is no such arm or measure, or the runs cannot have the measure.
    """
    runs = _sum(runs)
    if not len(runs):
        raise UserError(f"{runs.path} has no runs to compare yet: its arms are being tuned")
    parsed = Measure.parse(measure)
    records = runs.records()
    _check_metrics(parsed, records)
    groups = _arms(records, parsed)
    places = {name: _place(own, parsed) for name, own in groups.items()}
    words, bases = _baselines(places, baseline, runs.about.get("baseline"), _diverged(groups))
    groups = {name: own for base in dict.fromkeys(bases.values())
              for name, own in groups.items() if bases[name] == base}  # fmt: skip
    samples = {name: sample(name, own, parsed) for name, own in groups.items()}
    others = [name for name in groups if name != bases[name]]
    raw = {name: permutation_p(samples[name], samples[bases[name]]) for name in others}
    adjusted = dict(zip(others, holm([raw[name] for name in others]), strict=True))
    targets = _targets(runs)
    arms = []
    for name, own in groups.items():
        one, other = samples[name], samples[bases[name]]
        is_base = name == bases[name]
        arms.append(
            Arm(
                name,
                own,
                bases[name],
                one,
                mean_of(one),
                None if is_base else contrast(one, other),
                None if is_base else contrast(one, other, "ratio"),
                float("nan") if is_base else probability_better(
                    one, other, parsed.higher_is_better),
                raw.get(name, float("nan")),
                adjusted.get(name, float("nan")),
                _prices(own),
                tuple(sample(name, own, target) for target in targets),
            )
        )  # fmt: skip
    return Comparison(runs, parsed, words, arms, records)


def _baselines(
    arms: dict[str, dict[str, Any]], wanted: str | None, usual: str | None, diverged: set[str]
) -> tuple[str, dict[str, str]]:
    """Choose the baselines: those that are asked for, those of the config, or the first arm."""
    if wanted is None and usual is not None:
        with contextlib.suppress(UserError):  # its arm may not have been run yet
            return baselines(arms, usual)
    return baselines(arms, wanted, diverged)


def _diverged(groups: dict[str, list[Record]]) -> set[str]:
    """Name the arms with mostly diverged runs."""
    counts = {name: sum(r.state == "diverged" for r in own) for name, own in groups.items()}
    return {name for name, count in counts.items() if 2 * count > len(groups[name])}


def _sum(runs: Any) -> Runs:
    several = list(runs) if isinstance(runs, list | tuple) else [runs]
    wrong = [one for one in several if not isinstance(one, Runs)]
    if wrong or not several:
        found = wrong[0] if wrong else runs
        raise UserError(f"an experiment's runs are needed, as from normlab.load; found {found!r}")
    return functools.reduce(operator.add, several)


def _arms(records: list[Record], measure: Measure) -> dict[str, list[Record]]:
    """Group runs by arm; arms do not differ in an axis that the measure is taken over."""
    if measure.axis is not None and not all(measure.axis in record.axes for record in records):
        axes = ", ".join(axes_of(records)) or "none"
        raise UserError(f"{measure}: the sweep's axes are {axes}")
    found: dict[str, list[Record]] = {}
    for record in records:
        name = record.arm
        if measure.axis is not None:
            name = setting_words(_place([record], measure))
        found.setdefault(name or "all", []).append(record)
    return found


def _place(records: list[Record], measure: Measure) -> dict[str, Any]:
    """Place an arm on the axes, without the one that the measure is taken over."""
    return {a: value for a, value in records[0].axes.items() if a != measure.axis}


def _check_metrics(measure: Measure, records: list[Record]) -> None:
    rows = [record.metrics[-1] for record in records if record.metrics]
    lacking = [m for m in measure.metrics if rows and not any(m in row for row in rows)]
    if lacking:
        raise UserError(f"{measure}: these runs have no '{lacking[0]}'")
    if measure.name != "probe":
        return
    reasons = []
    for record in records:
        try:
            if record.finished and measure.of(record) is not None:
                return
        except NoValueError as error:
            reasons.append(f"{record.arm}, seed {seed_text(record.seed)}, {error}")
    if reasons:
        raise UserError(f"{measure}: {reasons[0]}")


def _target_of(runs: Runs) -> float | None:
    return (runs.about.get("target") or {}).get("test_accuracy")


def _targets(runs: Runs) -> list[Measure]:
    target = _target_of(runs)
    if target is None:
        return []
    return [Measure(name, ("test_accuracy", target)) for name in ("steps_to", "seconds_to")]


def _prices(records: list[Record]) -> dict[str, float]:
    found = {}
    for price in PRICES:
        values = [Measure(price).of(record) for record in records if record.finished]
        known = [value.number for value in values if value is not None]
        if known:
            found[price] = float(np.median(known))
    return found
