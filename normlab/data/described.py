"""Makes the dataset that a resolved config describes. Nothing here needs JAX."""

from typing import Any

from normlab.catalogue import DATA

BESIDE = ("augment", "validation", "shards")
"""The keys that the section has beside the arguments of the dataset that it names."""


def dataset_of(section: dict[str, Any]) -> Any:
    """Make the dataset of the section `data` of a resolved config; nothing is loaded yet.

    >>> dataset_of({"name": "shapes", "size": 8, "augment": [], "validation": None}).size
    8
    """
    arguments = {key: value for key, value in section.items() if key not in ("name", *BESIDE)}
    return DATA.load(section["name"])(**{k: hashable(value) for k, value in arguments.items()})


def hashable(value: Any) -> Any:
    """Return a value of a config as an argument: lists become tuples, which are hashable.

    >>> hashable([1, [2, 3]])
    (1, (2, 3))
    """
    return tuple(map(hashable, value)) if isinstance(value, list) else value
