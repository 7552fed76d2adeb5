"""What a measure gives, or why it gives nothing."""

from typing import NamedTuple

from normlab.errors import UserError


class Value(NamedTuple):
    """What a measure gives: a number, or with `censored` the number that it is known to exceed."""

    number: float
    censored: bool = False


class NoValueError(UserError):
    """A finished run has no value of a measure; the message says why, to stand after "seed 3"."""
