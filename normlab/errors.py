"""Errors that a person caused and can mend.

Every such error says what was found, what is allowed and what to do. The command line prints
these without a traceback; any other exception is a defect of normlab and keeps its traceback.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from normlab.spellings import meant

_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")


class UserError(Exception):
    """A mistake in the input. The message says what was found, what is allowed, and the fix."""


class FieldError(UserError, ValueError):
    """A field of a description (a normaliser, a model, a dataset) has an impossible value.

    `field` lets the config check point at the line and column of that field.
    """

    def __init__(self, field: str, message: str):
        super().__init__(message)
        self.field = field


class KernelError(UserError, ValueError):
    """A kernel has a shape that the kernel transform cannot handle."""


class ShapeError(UserError, ValueError):
    """An array has a shape for which the statistics are meaningless."""


class AxisError(UserError, NameError):
    """The mapped axis over which statistics should be shared does not exist."""


class MaskError(UserError, TypeError):
    """A mask holds values that do not say which elements count."""


def visible(text: str) -> str:
    r"""Write control characters as escapes, because a terminal would obey them.

    >>> print(visible("red \x1b[31m, a bell \x07"))
    red \x1b[31m, a bell \x07
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def in_one_line(error: BaseException, longest: int | None = None) -> str:
    """Return an error's type and the first line of its message.

    Args:
        error: the error; other libraries' messages may be long or empty.
        longest: where the line is cut, in characters; None for the whole line.

    >>> in_one_line(ValueError("bad magic number\\nat byte 0")), in_one_line(EOFError())
    ('ValueError: bad magic number', 'EOFError')
    """
    first = str(error).strip().partition("\n")[0].rstrip()[:longest]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names in a row, and how many more there are.

    >>> first_few(["a", "b"]), first_few(["a", "b", "c", "d"], most=2)
    ('a, b', 'a, b and 2 more')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def require_field(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise `FieldError` unless `condition` holds; `allowed` completes "`field` must be ...".

    >>> require_field(0 < 2, "eps", 2, "a positive number")
    >>> require_field(0 < -1, "eps", -1, "a positive number")
    Traceback (most recent call last):
    normlab.errors.FieldError: eps must be a positive number, got -1
    """
    if not condition:
        raise FieldError(field, f"{field} must be {allowed}, got {value!r}")


def require_whole(field: str, value: Any, low: int, high: int | None = None, of: str = "") -> None:
    """Raise `FieldError` unless `value` is a whole number in `low..high`.

    >>> require_whole("severity", 2.5, 1, 5)
    Traceback (most recent call last):
    normlab.errors.FieldError: severity must be in 1..5 and whole, got 2.5
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    allowed = f"at least {low}" if high is None else f"in {low}..{high}"
    fits = whole and low <= int(value) and (high is None or int(value) <= high)
    require_field(fits, field, value, allowed + ("" if whole else " and whole") + of)


def require_channels_last(name: str, shape: Sequence[int]) -> None:
    """Raise `UserError` if images that should be `(N, H, W, C)` are clearly `(N, C, H, W)`.

    They are if an axis of length one or three is followed by two equal axes longer than four.
    Nobody has images one or three pixels high whose width equals their number of channels.

    >>> require_channels_last("images", (8, 32, 32, 3))
    >>> require_channels_last("images", (8, 3, 32, 32))
    Traceback (most recent call last):
    normlab.errors.UserError: images have the shape (8, 3, 32, 32), with their channels first...
    """
    if len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3] > 4:
        raise UserError(
            f"{name} have the shape {tuple(shape)}, with their channels first; normlab takes "
            "(N, H, W, C): give images.transpose(0, 2, 3, 1)"
        )


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `word` was most likely meant to be, or None if none is close.

    >>> nearest("gruop_norm", ["batch_norm", "group_norm"])
    'group_norm'
    """
    names = list(candidates)
    begun = [name for name in names if name.startswith(word)]
    if len(word) >= 4 and begun:
        return min(begun, key=len)
    matches = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return the end of an error message: what was likely meant, or else all candidates.

    >>> did_you_mean("epoch", ["epochs", "batch_size"]), did_you_mean("lr", ["learning_rate"])
    ("did you mean 'epochs'?", "did you mean 'learning_rate'?")
    """
    names = sorted(candidates)
    usual = meant(word, names)
    close = usual or nearest(word, names)
    if close:
        return f"did you mean {close if close.startswith('{') else repr(close)}?"
    return f"allowed: {', '.join(names)}"
