"""Writes the facts about an entry in words, for `normlab describe`."""

import dataclasses
from typing import Any

from normlab.core import HELD_TO

LABELS = {"after": "came from", "aka": "also called", "held_to": "equations are held to"}
"""Facts whose names are not words that a reader knows."""


def facts_in_words(facts: Any) -> list[str]:
    """Write a line for each fact about an entry.

    >>> from normlab.norms import TaperNorm
    >>> facts_in_words(TaperNorm.facts)[-1]
    "equations are held to: others' accounts of the paper"
    """
    lines = []
    for field in dataclasses.fields(facts):
        value = getattr(facts, field.name)
        if isinstance(value, frozenset | tuple):
            value = ", ".join(sorted(value) if isinstance(value, frozenset) else value) or "nothing"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif field.name == "held_to":
            value = HELD_TO[value]
        value = "none" if value == "" else value
        name = LABELS.get(field.name, field.name.replace("_", " "))
        lines.append(f"{name}: {value}")
    return lines
