"""Reads a seed that is split into streams, `{init: 0..4, order: 0}`, as one axis of the sweep."""

import itertools
from typing import Any

from normlab.configs.document import Node, Path, Problem, show
from normlab.configs.sections import RANGE
from normlab.errors import did_you_mean
from normlab.store.seeds import STREAMS

SEED_PATH = ("train", "seed")

TOGETHER = "the streams of a seed are one axis: write them together"


def numbers_of(text: Any, most: int | None = None) -> list[int]:
    """Return the whole numbers of a range, at most so many; none of anything else.

    >>> numbers_of("2..4"), numbers_of("4..2"), numbers_of("0..9", 2)
    ([2, 3, 4], [], [0, 1])
    """
    match = RANGE.fullmatch(text) if isinstance(text, str) else None
    first, last = map(int, match.groups()) if match else (1, 0)
    return list(range(first, last + 1)[:most])


def is_by_streams(given: Any) -> bool:
    """Return whether a seed is a mapping of its streams; other mappings label values.

    >>> is_by_streams({"init": "0..4", "order": 0}), is_by_streams({"first": 0, "second": 1})
    (True, False)
    """
    known = isinstance(given, dict) and any(stream in given for stream in STREAMS)
    return known or _several(given)  # a label stands for one seed, so ranges are of streams


def has_several(given: Any) -> bool:
    """Return whether a seed is a mapping of streams of which one has several numbers."""
    return is_by_streams(given) and _several(given)


def _several(given: Any) -> bool:
    values = given.values() if isinstance(given, dict) else ()
    return any(isinstance(one, list) or numbers_of(one, 1) for one in values)


def cross(config: Node, path: Path, most: int) -> tuple[list[Node], list[Problem]]:
    """Return every combination of the numbers of a seed's streams, and the mistakes in them.

    Args:
        config: the config.
        path: the place of the mapping of streams to numbers, lists or ranges.
        most: the greatest number of combinations.
    """
    given, columns, problems = config.at(path).value, [], []
    for stream, numbers in given.items():
        found = [numbers] if type(numbers) is int else numbers
        found = found if isinstance(found, list) else numbers_of(found, most)
        if stream not in STREAMS:
            message = f"a seed has no stream '{stream}'; {did_you_mean(str(stream), STREAMS)}"
            problems.append(Problem(config.key_mark_at((*path, stream)), message))
        elif not found or not all(type(number) is int for number in found):
            message = (
                f"the stream '{stream}' of 'seed' must be a whole number, a list of them, or a "
                f"range such as 0..4, found {show(numbers)}"
            )
            problems.append(Problem(config.mark_at((*path, stream)), message))
        else:
            columns.append(dict.fromkeys(found))
    if problems:
        return [], problems
    rows = itertools.islice(itertools.product(*columns), most)
    combined = (dict.fromkeys(STREAMS, 0) | dict(zip(given, row, strict=True)) for row in rows)
    return [Node.of(one, config.mark_at(path)) for one in combined], []
