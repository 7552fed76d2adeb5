"""Defines the measures of runs, in a small language that is checked with the config.

A measure is a name, with its arguments in brackets if it has any: `final(test_accuracy)`,
`steps_to(test_accuracy, 0.6)`, `seconds_per_step`. `MEASURES` holds all of them.

A diverged run is never dropped. Its accuracy is that of a guess (1 / classes), its loss is that of
a guess (log classes), and it never reaches a target. A target that was not reached is censored: its
value is only known to be larger than the length of the run, and comparisons use no more than that.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from normlab.errors import UserError, did_you_mean
from normlab.measures.evaluated import as_policy, evaluated, gained
from normlab.measures.probe_values import as_quantity, as_step, drift, probe
from normlab.measures.value import Value, guess
from normlab.store.record import Record
from normlab.training import metrics

USUAL_MEASURE = "final(test_accuracy)"
"""The measure that is compared by default."""

ASKED_FOR = tuple(f"{part}_{name}" for part in ("test", "val") for name in metrics.METRICS)
"""The metrics that need `train.metrics`."""

METRICS = (
    *("train_loss", "train_accuracy", "test_loss", "test_accuracy", "val_loss", "val_accuracy"),
    *ASKED_FOR,
)
"""Columns of the rows of metrics that a measure can name. Those that begin with `val` need
`data.validation`."""


def higher_is_better(metric: str) -> bool:
    """Return whether more of a metric is better, which holds for all but losses."""
    return not metric.endswith("loss")


def metric_words(name: str) -> str:
    """Return the name of a metric or of an axis in words.

    >>> metric_words("val_balanced_accuracy"), metric_words("train_loss")
    ('validation balanced accuracy', 'training loss')
    """
    part, _, rest = name.partition("_")
    whole = {"train": "training", "val": "validation"}.get(part, part) if name in METRICS else part
    return f"{whole} {rest}".replace("_", " ").strip()


def unit_of(metric: str) -> str:
    """Return the unit of a metric.

    >>> unit_of("test_accuracy"), unit_of("train_loss")
    ('share of examples', 'nats')
    """
    if metric.endswith("loss"):
        return "nats"
    if metric.endswith("auc"):
        return "area under the curve"
    return "mean share of a class" if metric.endswith("balanced_accuracy") else "share of examples"


def _higher(arguments: tuple[Any, ...]) -> bool:
    return higher_is_better(arguments[0])


def _last(record: Record, metric: str) -> float:
    return guess(record, metric) if record.state == "diverged" else record.metrics[-1][metric]


def final(record: Record, metric: str) -> Value:
    """The metric at the last evaluation."""
    return Value(_last(record, metric))


def best(record: Record, metric: str) -> Value:
    """The metric's best over all evaluations; a test metric that is chosen so is too good."""
    choose = max if higher_is_better(metric) else min
    return Value(choose([row[metric] for row in record.metrics], default=guess(record, metric)))


def _first(record: Record, metric: str, level: float) -> dict[str, Any] | None:
    higher = higher_is_better(metric)
    reached = (r for r in record.metrics if (r[metric] >= level if higher else r[metric] <= level))
    return next(reached, None)


def steps_to(record: Record, metric: str, level: float) -> Value:
    """Optimiser steps until the first evaluation at which the metric is as good as the number."""
    row = _first(record, metric, level)
    return Value(record.status["steps"], True) if row is None else Value(row["step"])


def seconds_to(record: Record, metric: str, level: float) -> Value:
    """Training seconds until the metric is as good as the number (no compilation or evaluation)."""
    row = _first(record, metric, level)
    if row is not None:
        return Value(row["train_seconds"])
    spent, step = record.status["train_seconds"], max(record.status["step"], 1)
    # A diverged run ended early; the fair limit is the time that its whole length would have taken.
    return Value(spent * record.status["steps"] / step, True)


def area(record: Record, metric: str) -> Value:
    """The metric's mean over the steps, by trapezia; it is that of a guess after a divergence."""
    steps = [row["step"] for row in record.metrics]
    values = [row[metric] for row in record.metrics]
    if record.state == "diverged":
        steps += [record.status["step"], record.status["steps"]]
        values += [guess(record, metric)] * 2
    if steps[0] == steps[-1]:
        return Value(values[-1])
    return Value(float(np.trapezoid(values, steps)) / (steps[-1] - steps[0]))


def gap(record: Record, metric: str, other: str) -> Value | None:
    """The last value of the first metric minus that of the second; a diverged run has none."""
    lost = record.state == "diverged"
    return None if lost else Value(_last(record, metric) - _last(record, other))


def diverged(record: Record) -> Value:
    """The number 1 if a loss, a gradient or the parameters stopped being finite, else 0."""
    return Value(float(record.state == "diverged"))


def seconds_per_step(record: Record) -> Value | None:
    """Seconds of training for one optimiser step."""
    step = record.status["step"]
    return Value(record.status["train_seconds"] / step) if step else None


def peak_memory(record: Record) -> Value | None:
    """Megabytes (10^6) that a training step needs beyond its inputs, by the compiler's account."""
    return _of_status(record, "peak_bytes", 1e6)


def parameters(record: Record) -> Value | None:
    """The number of scalars in the model's parameters."""
    return _of_status(record, "parameters")


def compile_seconds(record: Record) -> Value | None:
    """Seconds of tracing and compiling the run's program, which runs of other seeds share."""
    return _of_status(record, "compile_seconds")


def epsilon(record: Record) -> Value | None:
    """The privacy loss epsilon of the weights, at `train.private.delta`; other runs have none.

    It bounds what all steps together reveal of one example.
    """
    rows = record.metrics
    return Value(rows[-1]["epsilon"]) if rows and "epsilon" in rows[-1] else None


def _of_status(record: Record, key: str, unit: float = 1.0) -> Value | None:
    found = record.status.get(key)
    return None if found is None else Value(found / unit)


def largest_stable(points: dict[Any, Record]) -> Value:
    """The largest value of the axis whose run learned; 0 if none did.

    A run learned if it did not diverge and its training loss ended at least 1% below a guess's.
    """
    return Value(float(max((x for x, record in points.items() if _learned(record)), default=0)))


def _learned(record: Record) -> bool:
    loss = record.metrics[-1]["train_loss"] if record.state == "done" else math.inf
    return loss < 0.99 * guess(record, "train_loss")


def slope(points: dict[Any, Record], metric: str) -> Value:
    """The growth of the metric's last value each time the axis doubles (least squares)."""
    doublings = [math.log2(x) for x in points]
    return Value(float(np.polyfit(doublings, [_last(r, metric) for r in points.values()], 1)[0]))


@dataclass(frozen=True)
class Definition:
    """One measure of the language.

    Attributes:
        takes: the kinds of its arguments: "metric", "number", "axis", "quantity" (that a probe
            records), "step" or "policy" (the label of one).
        compute: computes it from one record and the arguments. If it takes an axis, it computes it
            from the records by their value on the axis.
        higher_is_better: whether more of it is better, or a function of the arguments that returns
            this; None if neither more nor less is better.
        unit: the unit of the number, if it is not the metric's own.
        may_take: the kinds of further arguments: "how" reduces several values to one, or picks one.
            Those of a policy pick an evaluation, in any order.
        exact: whether the config alone decides it, so that equal values are no chance.
        words: its name in a picture, with its unit; `{0}` is the first argument in words, `{rest}`
            are the others, and `{unit}` is the unit of the metric. Empty if it is named as it is
            written.
    """

    takes: tuple[str, ...]
    compute: Callable[..., Value | None]
    higher_is_better: bool | Callable[[tuple[Any, ...]], bool] | None
    unit: str = ""
    may_take: tuple[str, ...] = ()
    exact: bool = False
    words: str = ""


MEASURES = {
    "final": Definition(("metric",), final, _higher, words="{0} at the end ({unit})"),
    "best": Definition(("metric",), best, _higher, words="best {0} ({unit})"),
    "steps_to": Definition(("metric", "number"), steps_to, False, "steps",
                           words="optimiser steps until {0} reaches {1}"),
    "seconds_to": Definition(("metric", "number"), seconds_to, False, "s",
                             words="seconds of training until {0} reaches {1}"),
    "area": Definition(("metric",), area, _higher, words="mean {0} over the steps ({unit})"),
    "gap": Definition(("metric", "metric"), gap, False, words="{0} minus {1} at the end ({unit})"),
    "evaluated": Definition(("metric", "policy"), evaluated, _higher,
                            may_take=("stream", "batch size", "corruption"),
                            words="{0} under {rest} ({unit})"),
    "gained": Definition(("metric", "policy", "policy"), gained, _higher,
                         may_take=("stream", "batch size", "corruption"),
                         words="{0} gained: {rest} ({unit})"),
    "diverged": Definition((), diverged, False, words="share of runs that diverged"),
    "seconds_per_step": Definition((), seconds_per_step, False, "s",
                                   words="seconds of an optimiser step"),
    "peak_memory": Definition((), peak_memory, False, "MB", exact=True,
                              words="memory of a training step (MB)"),
    "parameters": Definition((), parameters, False, exact=True, words="parameters (number)"),
    "compile_seconds": Definition((), compile_seconds, False, "s",
                                  words="seconds of tracing and compiling"),
    "epsilon": Definition((), epsilon, False, exact=True, words="privacy loss epsilon"),
    "largest_stable": Definition(("axis",), largest_stable, True,
                                 words="largest {0} that still learns"),
    "slope": Definition(("metric", "axis"), slope, True,
                        words="change of {0} each time {1} doubles ({unit})"),
    "probe": Definition(("quantity", "step"), probe, None, may_take=("how",)),
    "drift": Definition(("quantity",), drift, None, may_take=("how",)),
}  # fmt: skip
"""Every measure, by name."""

PRICES = ("seconds_per_step", "peak_memory", "parameters", "compile_seconds")
"""The measures of the cost of a run."""


def described() -> dict[str, str]:
    """Return a description of every measure, by the form in which it is written.

    >>> described()["steps_to(metric, number)"].split(" until")[0]
    'Optimiser steps'
    """
    return {
        _form(name): (inspect.getdoc(kind.compute) or "").partition("\n")[0]
        for name, kind in MEASURES.items()
    }


def _form(name: str) -> str:
    takes = ", ".join(MEASURES[name].takes)
    more = "".join(f"[, {one}]" for one in MEASURES[name].may_take)
    return f"{name}({takes}{more})" if takes else name


READERS = {"quantity": as_quantity, "step": as_step, "policy": as_policy}
"""The kinds of arguments that have a function of their own that reads them."""

_TOKENS = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\((.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class Measure:
    """A measure with its arguments; `str` gives it back as it is written.

    >>> measure = Measure.parse("steps_to( test_accuracy,0.60 )")
    >>> str(measure), measure.higher_is_better
    ('steps_to(test_accuracy, 0.6)', False)
    >>> Measure.parse("finl(test_accuracy)")
    Traceback (most recent call last):
        ...
    normlab.errors.UserError: there is no measure 'finl'; did you mean 'final'?
    """

    name: str
    arguments: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Measure":
        """Read a measure.

        Raises:
            UserError: the text is no measure; the message says what is wrong and what is allowed.
        """
        match = _TOKENS.fullmatch(text)
        if match is None:
            raise UserError(f"a measure is written as in final(test_accuracy), found '{text}'")
        name, inner = match.groups()
        if name not in MEASURES:
            raise UserError(f"there is no measure '{name}'; {did_you_mean(name, MEASURES)}")
        words = [word.strip() for word in (inner or "").split(",")] if (inner or "").strip() else []
        kind = MEASURES[name]
        takes = (*kind.takes, *kind.may_take)[: max(len(words), len(kind.takes))]
        if len(words) != len(takes):
            form, count = _form(name), len(words)
            raise UserError(
                f"'{text}' has {count} argument{'' if count == 1 else 's'}; it is written {form}"
            )
        return cls(name, tuple(map(_argument, takes, words)))

    def __str__(self) -> str:
        inner = ", ".join(f"{a:g}" if isinstance(a, float) else str(a) for a in self.arguments)
        return f"{self.name}({inner})" if self.arguments else self.name

    @property
    def definition(self) -> Definition:
        """The entry of `MEASURES` that it names."""
        return MEASURES[self.name]

    @property
    def words(self) -> str:
        """Its name in a picture, with its unit.

        >>> Measure.parse("final(test_accuracy)").words
        'test accuracy at the end (share of examples)'
        >>> Measure.parse("steps_to(val_accuracy, 0.6)").words
        'optimiser steps until validation accuracy reaches 0.6'
        """
        if not self.definition.words:
            return str(self)
        arguments = [
            f"{one:g}" if isinstance(one, float) else metric_words(str(one))
            for one in self.arguments
        ]
        unit = unit_of(self.metrics[0]) if self.metrics else ""
        return self.definition.words.format(*arguments, unit=unit, rest=", ".join(arguments[1:]))

    @property
    def axis(self) -> str | None:
        """The axis over which it is taken, or None; an arm's runs may differ on it."""
        takes = self.definition.takes
        return self.arguments[takes.index("axis")] if "axis" in takes else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics it names."""
        pairs = zip(self.definition.takes, self.arguments, strict=False)
        return tuple(argument for kind, argument in pairs if kind == "metric")

    @property
    def higher_is_better(self) -> bool | None:
        """Whether more of it is better; None if neither more nor less is."""
        higher = self.definition.higher_is_better
        return higher(self.arguments) if callable(higher) else higher

    def of(self, record: Record) -> Value | None:
        """Return its value for one finished run, or None if the run has none.

        Raises:
            NoValueError: the run has none, and the message says why.
        """
        if record.metrics and any(metric not in record.metrics[-1] for metric in self.metrics):
            return None  # some runs of a sweep may hold examples out and others not
        return self.definition.compute(record, *self.arguments)

    def over(self, records: list[Record]) -> Value | None:
        """Return its value for finished runs that differ on its axis alone."""
        points = {record.axes[str(self.axis)]: record for record in records}
        return self.definition.compute(dict(sorted(points.items())), *self.metrics)


def _argument(kind: str, word: str) -> Any:
    if kind == "metric" and word not in METRICS:
        raise UserError(f"no metric is called '{word}'; {did_you_mean(word, METRICS)}")
    if kind in READERS:
        return READERS[kind](word)
    if kind != "number":
        return word
    try:
        number = float(word)
    except ValueError:
        raise UserError(f"'{word}' must be a number") from None
    if not math.isfinite(number):
        raise UserError(f"'{word}' must be a finite number")
    return number
