"""Shapes of what normlab writes to disk, and whether something read back has them.

A shape is text, a number and the like (`TEXT`, `COUNT`, ...), `[shape]` for a list of such, a
mapping of keys to shapes, or a tuple of shapes of which one must fit. A key that ends in "?" may be
missing, and the key `...` stands for all keys that are not named; without it these may be anything.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGEST = 2**63
"""Whole numbers from there on fit no array."""

Shape = Any


@dataclass(frozen=True)
class Leaf:
    """One value that holds no others."""

    words: str
    fits: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < LARGEST


TEXT = Leaf("text", lambda value: type(value) is str)
TRUTH = Leaf("true or false", lambda value: type(value) is bool)
WHOLE = Leaf("a whole number", _is_whole)
COUNT = Leaf("a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
NUMBER = Leaf("a number", lambda value: type(value) is float or _is_whole(value))
FINITE = Leaf("a finite number", lambda value: NUMBER.fits(value) and math.isfinite(value))
SHARE = Leaf("a number from 0 to 1", lambda value: NUMBER.fits(value) and 0 <= value <= 1)
AMOUNT = Leaf("a number of at least 0", lambda value: FINITE.fits(value) and value >= 0)
ANYTHING = Leaf("anything", lambda value: True)
SCALAR = (TEXT, TRUTH, NUMBER, None)


def one_of(*words: str) -> Leaf:
    """One of some words."""
    return Leaf(f"one of {', '.join(words)}", lambda value: type(value) is str and value in words)


def fault(value: Any, shape: Shape) -> str | None:
    """What is wrong with a value, in words; None where it has the shape.

    Args:
        value: as JSON or YAML gives it.
        shape: one that stays as it is; how it is checked is remembered.

    >>> fault({"step": 3}, {"step": COUNT, "arm?": TEXT}) is None
    True
    >>> fault({"steps": [3, "4"]}, {"steps": [COUNT]})
    "'steps[1]' must be a whole number of at least 0, found '4'"
    """
    if id(shape) not in _CHECKS:
        _CHECKS[id(shape)] = shape, _check_of(shape)  # which keeps it, so that no other has its id
    return None if _CHECKS[id(shape)][1](value) else _explained(value, shape, "")


_CHECKS: dict[int, tuple[Shape, Callable[[Any], bool]]] = {}


def _check_of(shape: Shape) -> Callable[[Any], bool]:
    """Whether a value has the shape, and nothing else: a sweep has thousands of files."""
    if isinstance(shape, Leaf):
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
    if isinstance(shape, Leaf):
        return None if shape.fits(value) else _mismatch(value, shape, place)
    if isinstance(shape, tuple):
        faults = [_explained(value, one, place) for one in shape]
        # Where several may fit, the one of the value's own kind says best what is wrong.
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
    """A shape for people.

    >>> words(([TEXT], None))
    'a list or null'
    """
    if isinstance(shape, tuple):
        return " or ".join(map(words, shape))
    if isinstance(shape, Leaf):
        return shape.words
    return "null" if shape is None else "a list" if isinstance(shape, list) else "a mapping"


def shown(value: Any) -> str:
    """A value for people, in short.

    >>> shown({"a": 1}), shown("x" * 100)[-3:]
    ('a mapping', '...')
    """
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
