"""Measures the records of probes: `probe(quantity, step, how)` and `drift(quantity, how)`."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from normlab.catalogue import PROBES
from normlab.errors import UserError, did_you_mean, nearest
from normlab.measures.value import NoValueError, Value
from normlab.store.record import Record

END = "end"

SMALLEST = float(np.finfo(np.float32).tiny)


def spread(values: np.ndarray) -> float:
    """Return the standard deviation of the log10 of positive numbers.

    >>> round(spread(np.array([0.1, 10.0])), 6)
    1.0
    """
    if (values < 0).any():
        raise NoValueError("has negative values, between which there are no powers of ten")
    return float(np.std(np.log10(np.maximum(values, SMALLEST))))


REDUCTIONS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda values: float(values.mean()),
    "median": lambda values: float(np.median(values)),
    "min": lambda values: float(values.min()),
    "max": lambda values: float(values.max()),
    "first": lambda values: float(values[0]),
    "last": lambda values: float(values[-1]),
    "spread": spread,
}
"""Functions that reduce several values (of the layers, or along a line) to one. The name of a layer
picks its value instead."""


def leading(name: str) -> tuple[str, ...]:
    """Return the quantities of a probe that reports show first; the catalogue may name none.

    >>> leading("hessian"), leading("my_probe")
    (('largest', 'smallest'), ())
    """
    entry = PROBES.entries().get(name)
    return entry.told.get("leading", ()) if entry is not None else ()


def probe(record: Record, quantity: str, step: int | str, how: str = "") -> Value | None:
    """The value of a probe before a step (or at the "end"); mean, max, ... of several values."""
    wanted = record.status["steps"] if step == END else step
    if record.state == "diverged" and wanted > record.status["step"]:
        return None
    own = _seen(record, quantity)
    if wanted not in own:
        steps = ", ".join(map(str, own))
        raise NoValueError(f"has no '{quantity}' of step {wanted}; it has those of {steps}")
    return Value(_as_number(own[wanted], quantity, how))


def drift(record: Record, quantity: str, how: str = "") -> Value | None:
    """The standard deviation of a probe's recorded values over the steps at which it looked."""
    if record.state == "diverged":
        return None
    rows = _seen(record, quantity).values()
    return Value(float(np.std([_as_number(row, quantity, how) for row in rows])))


def _seen(record: Record, quantity: str) -> dict[int, dict[str, Any]]:
    """Return the rows of one quantity, by step."""
    rows = [row for row in record.probes if "values" in row]
    if not rows:
        raise NoValueError("was made without probes")
    pairs = dict.fromkeys((row["probe"], row["quantity"]) for row in rows)
    pair = find(quantity, pairs)
    return {row["step"]: row for row in rows if (row["probe"], row["quantity"]) == pair}


def _as_number(row: dict[str, Any], quantity: str, how: str) -> float:
    check_reduction(quantity, how, row["layers"], np.shape(row["values"]))
    values = np.array(row["values"], float)  # null becomes NaN
    if how in (row["layers"] or ()):
        values = values[row["layers"].index(how)]
    if not np.isfinite(values).all():
        raise NoValueError(f"has a '{quantity}' of step {row['step']} that is not finite")
    return REDUCTIONS[how](values) if values.ndim else float(values)


def find(word: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Return the probe and the quantity that `quantity` or `probe.quantity` means.

    >>> find("spread", [("updates", "spread"), ("updates", "ratio")])
    ('updates', 'spread')

    Raises:
        NoValueError: it means no quantity or several; the message has the nearest.
    """
    every = list(pairs)
    chosen = [pair for pair in every if word in (pair[1], ".".join(pair))]
    names = [".".join(pair) for pair in every]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        several = " or ".join(map(".".join, chosen))
        raise NoValueError(f"has several quantities called '{word}': write {several}")
    short = {pair[1]: ".".join(pair) for pair in every}
    near = short.get(nearest(word, short) or "")
    hint = f"did you mean '{near}'?" if near and "." not in word else did_you_mean(word, names)
    raise NoValueError(f"has no probe's quantity '{word}'; {hint}")


def check_reduction(
    quantity: str, how: str, layers: Iterable[str] | None, shape: tuple[int, ...]
) -> None:
    """Check that `how` reduces a quantity of this shape to one number.

    Raises:
        NoValueError: it does not; the message says what would.
    """
    known = list(layers or ())
    allowed = ", ".join(REDUCTIONS)
    if len(shape) == 0:
        if how:
            raise NoValueError(f"has one number for '{quantity}', which needs no '{how}'")
    elif len(shape) > 1:
        raise NoValueError(f"has a list for each layer of '{quantity}', which is no single number")
    elif how not in REDUCTIONS and how not in known:
        of = f"layers, from {known[0]} to {known[-1]}" if known else "points"
        found = f"; {did_you_mean(how, [*REDUCTIONS, *known])}" if how and known else ""
        raise NoValueError(
            f"has {shape[0]} values of '{quantity}', one for each of its {of}: say which or how "
            f"after the step, {allowed}{' or a layer' if known else ''}{found}"
        )


def as_quantity(word: str) -> str:
    """Read the name of a quantity.

    Raises:
        UserError: the word cannot be one.
    """
    if not word or word.startswith(".") or word.count(".") > 1:
        raise UserError(f"'{word}' must be a quantity, as in updates.spread")
    return word


def as_step(word: str) -> Any:
    """Read a step: a whole number, or "end"."""
    if word == END:
        return END
    if not word.isdecimal():
        raise UserError(f"'{word}' must be a step, a whole number or {END}")
    return int(word)
