"""Chooses which of a run's numbers are worth a line in a repository."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from normlab.measures.evaluated import EVALUATE
from normlab.measures.measures import Measure
from normlab.measures.probe_values import leading
from normlab.store.reading import JsonRows

MOST_ROWS = 40
"""So many evenly spaced rows of a run's metrics are kept, and those that claims need.
A claim about the area keeps all rows."""


def evenly_spaced(items: Sequence[Any]) -> list[Any]:
    """Choose at most `MOST_ROWS` items: the first, the last and some between."""
    count = min(len(items), MOST_ROWS)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, count).round()]


class Thinning:
    """Chooses rows of metrics and of probes by what claims measure and pictures draw."""

    def __init__(self, measures: Iterable[str], drawn: str = "") -> None:
        self._measures = [Measure.parse(text) for text in measures]
        inside = (one.arguments[0] for one in self._measures if looks_inside(one))
        self._quantities = {name.rpartition(".")[2] for name in (*inside, drawn)}
        self._drawn = drawn

    def rows(self, rows: JsonRows) -> JsonRows:
        """Keep all rows of short curves, and some of long ones."""
        if len(rows) <= MOST_ROWS or any(one.name == "area" for one in self._measures):
            return rows
        chosen = set(evenly_spaced(range(len(rows))))
        for one in self._measures:
            if one.name in ("steps_to", "seconds_to"):
                values = [row[one.metrics[0]] for row in rows]
                sign = 1 if one.metrics[0].endswith("loss") else -1
                reached = (i for i, v in enumerate(values) if sign * v <= sign * one.arguments[1])
                chosen.add(next(reached, 0))
            if one.name == "best":
                values = np.array([row[one.metrics[0]] for row in rows])
                chosen.add(int(values.argmax() if one.higher_is_better else values.argmin()))
        return [rows[index] for index in sorted(chosen)]

    def probes(self, rows: JsonRows) -> JsonRows:
        """Keep what claims name and the picture draws; by default what pictures lead with."""
        return [row for row in rows if "error" in row or self._is_kept(row)]

    def _is_kept(self, row: dict[str, Any]) -> bool:
        if row["probe"] == EVALUATE:  # a few numbers for each run
            return True
        first = () if self._drawn else leading(row["probe"])
        return row["quantity"] in (*self._quantities, *first)


def looks_inside(measure: Measure) -> bool:
    """Return whether a measure reads what probes saw."""
    return "quantity" in measure.definition.takes
