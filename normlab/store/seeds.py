"""Splits a seed into streams of randomness: initial weights, order, augmentation and dropout.

A seed is a whole number, of which every stream of a run is made. A split seed gives each stream a
number of its own, and is kept as one number too, so that runs are listed, paired and planned by it:
above every plain seed, with twelve bits for each stream. A config writes it as a mapping, such as
`{init: 2, order: 0, augment: 1}`, in which a stream that is not named has the number 0.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from normlab.errors import FieldError, did_you_mean

STREAMS = ("init", "order", "augment", "dropout")
"""The streams: initial weights, order of the examples, augmentation, dropped units."""

MOST = 2**12
"""A stream's number is smaller."""

_SPLIT = MOST ** len(STREAMS)
_PLAIN = 2**32


def split_seed(init: int = 0, order: int = 0, augment: int = 0, dropout: int = 0) -> int:
    """Return the seed whose streams have these numbers.

    Args:
        init: of the initial weights.
        order: of the order of the training examples.
        augment: of the augmentation.
        dropout: of dropout.

    Raises:
        FieldError: a number is negative, or not below 4096.

    >>> streams_of(split_seed(init=2, augment=1))
    {'init': 2, 'order': 0, 'augment': 1, 'dropout': 0}
    """
    numbers = (init, order, augment, dropout)
    for stream, number in zip(STREAMS, numbers, strict=True):
        if type(number) is not int or not 0 <= number < MOST:
            allowed = f"must be a whole number from 0 to {MOST - 1}"
            raise FieldError("seed", f"the stream '{stream}' {allowed}, found {number!r}")
    return _SPLIT + sum(number * MOST**place for place, number in enumerate(numbers))


def is_split(seed: int) -> bool:
    """Return whether a seed has a number for each stream.

    >>> is_split(3), is_split(split_seed(3))
    (False, True)
    """
    return _SPLIT <= seed < 2 * _SPLIT


def is_seed(seed: int) -> bool:
    """Return whether a number is a seed, plain or split."""
    return 0 <= seed < _PLAIN or is_split(seed)


def streams_of(seed: int) -> dict[str, int]:
    """Return the number of each stream; a plain seed is that of every stream.

    >>> streams_of(3)
    {'init': 3, 'order': 3, 'augment': 3, 'dropout': 3}
    """
    if not is_split(seed):
        return dict.fromkeys(STREAMS, seed)
    return {stream: seed // MOST**place % MOST for place, stream in enumerate(STREAMS)}


def seed_of(setting: Any) -> int:
    """Return the seed that a resolved config's `train.seed` means: a number or a mapping.

    Raises:
        FieldError: the mapping has another key than a stream's, or another value than its number.
    """
    if not isinstance(setting, Mapping):
        return setting
    for key in setting:
        if key not in STREAMS:
            message = f"a seed has no stream '{key}'; {did_you_mean(str(key), STREAMS)}"
            raise FieldError("seed", message)
    return split_seed(**setting)


def setting_of(seed: int) -> Any:
    """Return a seed as a resolved config has it: a number, or a mapping of streams to numbers.

    >>> setting_of(3), setting_of(split_seed(order=1))
    (3, {'init': 0, 'order': 1, 'augment': 0, 'dropout': 0})
    """
    return streams_of(seed) if is_split(seed) else seed


def varying(seeds: Iterable[int]) -> tuple[str, ...]:
    """Return the streams that have several numbers among some seeds.

    >>> varying([split_seed(init=0), split_seed(init=1)])
    ('init',)
    """
    every = [streams_of(seed) for seed in seeds]
    return tuple(s for s in STREAMS if len({streams[s] for streams in every}) > 1)


def shared(seeds: Collection[int]) -> tuple[str, ...]:
    """Return the varying streams in which two of some seeds have the same number.

    Runs that share one are no independent repetitions. Plain seeds share nothing.

    >>> shared([split_seed(0, 0), split_seed(0, 1), split_seed(1, 0), split_seed(1, 1)])
    ('init', 'order')
    >>> shared([0, 1, 2]), shared([split_seed(0, 5), split_seed(1, 6)])
    ((), ())
    """
    every = [streams_of(seed) for seed in seeds]
    return tuple(s for s in varying(seeds) if len({own[s] for own in every}) < len(every))


def seed_text(seed: int) -> str:
    """Write a seed for people; dropout is named only if its number is not 0.

    >>> seed_text(3), seed_text(split_seed(init=2, augment=1))
    ('3', 'init=2 order=0 augment=1')
    """
    if not is_split(seed):
        return str(seed)
    streams = streams_of(seed)
    return " ".join(f"{s}={n}" for s, n in streams.items() if n or s != "dropout")


def stream_columns(seed: int) -> dict[str, int]:
    """Return the columns that a table has for the streams of a split seed; none of a plain one.

    >>> stream_columns(3), stream_columns(split_seed(init=2))
    ({}, {'seed_init': 2, 'seed_order': 0, 'seed_augment': 0, 'seed_dropout': 0})
    """
    streams = streams_of(seed) if is_split(seed) else {}
    return {f"seed_{stream}": number for stream, number in streams.items()}


def seed_id(seed: int) -> str:
    """Write a seed as a part of a folder's name.

    >>> seed_id(3), seed_id(split_seed(init=2, augment=1))
    ('3', '2.0.1.0')
    """
    return ".".join(map(str, streams_of(seed).values())) if is_split(seed) else str(seed)
