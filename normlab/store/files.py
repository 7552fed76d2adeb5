"""Reads the small files that normlab writes (JSON, YAML, lines of JSON) with care.

A file that was cut or changed raises `DamagedError` with its path and the mend, never an error of a
parser. So does a missing file that others name.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from normlab.errors import UserError
from normlab.store.shapes import Shape, fault

DEEPEST = 30
"""A file may have this many nested levels; normlab writes fewer than ten."""

_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # it is much the faster one


class DamagedError(UserError):
    """A file is not as normlab wrote it.

    Attributes:
        file: the damaged file.
        found: what is wrong with it.
        mend: what can be done about it.
    """

    def __init__(self, file: Path, found: str, mend: str):
        super().__init__(f"{file} is damaged: {found}; {mend}")
        self.file, self.found, self.mend = file, found, mend

    def __reduce__(self) -> Any:
        return type(self), (self.file, self.found, self.mend)  # errors pass between processes


def read_bytes(file: Path, mend: str) -> bytes | None:
    """Read a file's bytes; None if there is no such file.

    Raises:
        DamagedError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedError(file, f"it cannot be read ({error})", mend) from None


def read_json(file: Path, shape: Shape, mend: str) -> Any:
    """Read a file of JSON; None if there is no such file.

    Raises:
        DamagedError: it is not JSON, or not of this shape.
    """
    content = read_bytes(file, mend)
    return None if content is None else as_json(file, content, shape, mend)


def as_json(file: Path, content: bytes, shape: Shape, mend: str) -> Any:
    """Parse the content of a file of JSON.

    Raises:
        DamagedError: it is not JSON, or not of this shape.
    """
    return _as(json.loads, file, content, shape, mend)


def as_yaml(file: Path, content: bytes, shape: Shape, mend: str) -> Any:
    """Parse the content of a file of YAML.

    Raises:
        DamagedError: it is not YAML, or not of this shape.
    """
    return _as(lambda text: yaml.load(text, _YAML), file, content, shape, mend)


def _as(parse: Callable[[str], Any], file: Path, content: bytes, shape: Shape, mend: str) -> Any:
    try:
        found = parsed(content, parse)
    except ValueError as error:
        raise DamagedError(file, str(error), mend) from None
    wrong = fault(found, shape)
    if wrong is not None:
        raise DamagedError(file, wrong, mend)
    return found


def read_lines(
    file: Path, content: bytes, shape: Shape, mend: str, torn: bool
) -> list[dict[str, Any]]:
    """Parse a file of lines of JSON into rows, in order.

    Args:
        file: the file, for the message.
        content: its content.
        shape: the shape of every row.
        mend: what can be done if the file is damaged.
        torn: whether a last line without an end, as a crash leaves one, is left out.

    Raises:
        DamagedError: a line is not JSON, or not of this shape.
    """
    lines = content.split(b"\n")
    last = lines.pop()  # it is empty, unless the last line has no end
    rows = []
    for number, line in enumerate([*lines, last] if last and not torn else lines, start=1):
        try:
            row = parsed(line, json.loads)
        except ValueError as error:
            raise DamagedError(file, f"line {number}: {error}", mend) from None
        wrong = fault(row, shape)
        if wrong is not None:
            raise DamagedError(file, f"line {number}: {wrong}", mend)
        rows.append(row)
    if last and not torn:
        raise DamagedError(file, "its last line has no end", mend)
    return rows


def parsed(content: bytes, parse: Callable[[str], Any]) -> Any:
    """Parse a text.

    Raises:
        ValueError: something is wrong with the text; the message says what.
    """
    try:
        text = content.decode("utf-8")
        if not text.strip():
            raise ValueError("it is empty")
        found = parse(text)
        # YAML nests by indentation. In JSON brackets show the depth, and few files have so many.
        may_be = parse is not json.loads or text.count("[") + text.count("{") > DEEPEST
        deep = may_be and _is_deeper(found, DEEPEST)
        if "\\u" in text:  # half a pair of surrogates can be read but not written
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        deep, found = True, None
    except (ValueError, yaml.YAMLError, OverflowError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    if deep:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    return found


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in value)
