"""Defines the value of a measure, and the error for a run that has none."""

from typing import NamedTuple

from normlab.errors import UserError


class Value(NamedTuple):
    """The value of a measure; if it is `censored`, it is only known to exceed the number."""

    number: float
    censored: bool = False


class NoValueError(UserError):
    """A finished run has no value of a measure; the message continues "seed 3" and says why."""
