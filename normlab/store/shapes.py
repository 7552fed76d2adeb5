"""A small language for the shapes of files, and the check that a file has its shape.

A shape is text, a number and the like (`TEXT`, `COUNT`, ...), `[shape]` for a list, a mapping
of keys to shapes, or a tuple of shapes if any of them may fit. A key that ends in "?" may be
missing. The key `...` stands for all keys that are not named; without it they may hold anything.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGEST = 2**63
"""Larger whole numbers fit no array."""

Shape = Any


@dataclass(frozen=True)
class Single:
    """The shape of a single value."""

    words: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

ANY_TEXT = Single("text", lambda value: type(value) is str)
TEXT = Single(
    "text without control characters, which a terminal would obey",
    lambda value: type(value) is str and not _CONTROLS.search(value),
)
TRUTH = Single("true or false", lambda value: type(value) is bool)
WHOLE = Single("a whole number", _is_whole)
COUNT = Single("a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
NUMBER = Single("a number", lambda value: type(value) is float or _is_whole(value))
FINITE = Single("a finite number", lambda value: NUMBER.fits(value) and math.isfinite(value))
SHARE = Single("a number from 0 to 1", lambda value: NUMBER.fits(value) and 0 <= value <= 1)
AMOUNT = Single("a number of at least 0", lambda value: FINITE.fits(value) and value >= 0)
ANYTHING = Single("anything", lambda value: True)
SCALAR = (TEXT, TRUTH, NUMBER, None)


def one_of(*words: str) -> Single:
    """Return the shape of a text that must be one of some words."""
    return Single(f"one of {', '.join(words)}", lambda value: type(value) is str and value in words)


def fault(value: Any, shape: Shape) -> str | None:
    """Say what is wrong with a value, in words; None if it has the shape.

    Args:
        value: as JSON or YAML gives it.
        shape: a shape that is not changed later; its check is kept for the next time.

    >>> fault({"step": 3}, {"step": COUNT, "arm?": TEXT}) is None
    True
    >>> fault({"steps": [3, "4"]}, {"steps": [COUNT]})
    "'steps[1]' must be a whole number of at least 0, found '4'"
    """
    if id(shape) not in _CHECKS:
        # the shape is kept, so that its id stays its own
        _CHECKS[id(shape)] = shape, _check_of(shape)
    return None if _CHECKS[id(shape)][1](value) else _explained(value, shape, "")


_CHECKS: dict[int, tuple[Shape, Callable[[Any], bool]]] = {}


def _check_of(shape: Shape) -> Callable[[Any], bool]:
    """Compile a shape into a fast check, because a sweep has thousands of files."""
    if isinstance(shape, Single):
        return shape.fits
    if isinstance(shape, list):
        inner = _check_of(shape[0])
        return lambda value: type(value) is list and all(map(inner, value))
    if isinstance(shape, tuple):
        checks = [_check_of(one) for one in shape]
        return lambda value: any(check(value) for check in checks)
    if shape is None:
        return lambda value: value is None
    named = {_name(key): (_check_of(one), _name(key) == key)
             for key, one in shape.items() if key is not ...}  # fmt: skip
    others = _check_of(shape[...]) if ... in shape else None

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        for name, (fits, needed) in named.items():
            if name in value:
                if not fits(value[name]):
                    return False
            elif needed:
                return False
        return others is None or all(others(value[key]) for key in value if key not in named)

    return check


def _name(key: str) -> str:
    return key.removesuffix("?")


def _explained(value: Any, shape: Shape, place: str) -> str | None:
    if isinstance(shape, Single):
        return None if shape.fits(value) else _mismatch(value, shape, place)
    if isinstance(shape, tuple):
        faults = [_explained(value, one, place) for one in shape]
        # The shape of the value's own kind describes the fault best.
        own = [f for f, one in zip(faults, shape, strict=True) if type(one) is type(value)]
        return None if None in faults else (*own, _mismatch(value, shape, place))[0]
    if shape is None:
        return None if value is None else _mismatch(value, shape, place)
    if type(value) is not type(shape):
        return _mismatch(value, shape, place)
    if isinstance(shape, list):
        parts = [(one, shape[0], f"{place}[{at}]") for at, one in enumerate(value)]
    else:
        inner = {key: f"{place}.{key}" if place else str(key) for key in value}
        known = {_name(key): key for key in shape if key is not ...}
        lacking = [name for name, key in known.items() if name == key and name not in value]
        if lacking:
            return f"'{place}.{lacking[0]}' is missing" if place else f"'{lacking[0]}' is missing"
        parts = [
            (one, shape[known[key]] if key in known else shape.get(..., ANYTHING), inner[key])
            for key, one in value.items()
        ]
    return next(filter(None, (_explained(*part) for part in parts)), None)


def _mismatch(value: Any, shape: Shape, place: str) -> str:
    must = f"'{place}' must be" if place else "it must be"
    return f"{must} {words(shape)}, found {shown(value)}"


def words(shape: Shape) -> str:
    """Describe a shape in words.

    >>> words(([TEXT], None))
    'a list or null'
    """
    if isinstance(shape, tuple):
        return " or ".join(map(words, shape))
    if isinstance(shape, Single):
        return shape.words
    return "null" if shape is None else "a list" if isinstance(shape, list) else "a mapping"


def shown(value: Any) -> str:
    """Show a value in a message, cut if it is long.

    >>> shown({"a": 1}), shown("x" * 100)[-3:]
    ('a mapping', '...')
    """
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
