"""Shows runs in a notebook: as HTML, and as pandas frames where pandas is installed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from normlab.errors import UserError
from normlab.store.record import Record
from normlab.store.seeds import seed_text, stream_columns
from normlab.store.templating import fill_in

WIDTH, HEIGHT = 90, 22
"""The size of a sparkline, in pixels."""


def to_frame(rows: list[dict[str, Any]]) -> Any:
    """Make a pandas DataFrame of rows.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError("pandas is not installed: pip install pandas") from None
    return pandas.DataFrame(rows)


def last_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """List for every run its arm, seed, axes, state, last metrics and folder."""
    return [
        _place(record)
        | {"state": record.state}
        | (record.metrics[-1] if record.metrics else {})
        | {"folder": record.path.name}
        for record in records
    ]


def all_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """List every row of metrics of every run, with the run's arm, seed and axes."""
    return [_place(record) | row for record in records for row in record.metrics]


def probe_rows(records: Iterable[Record]) -> list[dict[str, Any]]:
    """List every number of the probes, with arm, seed, axes, step, quantity, layer and index."""
    return [
        _place(record) | number
        for record in records
        for row in record.probes
        for number in numbers(row)
    ]


def _place(record: Record) -> dict[str, Any]:
    return {"arm": record.arm, "seed": record.seed, **stream_columns(record.seed), **record.axes}


def numbers(row: dict[str, Any]) -> list[dict[str, Any]]:
    """List the numbers of one row of probes, each with its layer and its place in a list.

    >>> row = {"step": 0, "probe": "p", "quantity": "q", "layers": ["a", "b"], "values": [1, 2]}
    >>> numbers(row)[1]
    {'step': 0, 'probe': 'p', 'quantity': 'q', 'layer': 'b', 'index': None, 'value': 2}
    """
    if "values" not in row:
        return []
    layers, values = row["layers"] or [None], row["values"]
    return [
        {
            **{key: row[key] for key in ("step", "probe", "quantity")},
            "layer": layer,
            "index": index if isinstance(own, list) else None,
            "value": value,
        }
        for layer, own in zip(layers, values if row["layers"] else [values], strict=True)
        for index, value in enumerate(own if isinstance(own, list) else [own])
    ]


def to_html(path: Path, about: dict[str, Any], records: Iterable[Record]) -> str:
    """Make a table with a line a run: arm, seed, state, last test accuracy, and its curve."""
    lines = []
    for record in records:
        values = [row["test_accuracy"] for row in record.metrics if "test_accuracy" in row]
        last = f"{values[-1]:.3f}" if values else ""
        lines.append(((record.arm, seed_text(record.seed), record.state, last), curve(values)))
    return fill_in(
        "normlab.store",
        "runs.html.j2",
        path=path,
        question=about.get("question") or "",
        headings=("arm", "seed", "state", "test accuracy", "by evaluation"),
        lines=lines,
        width=WIDTH,
        height=HEIGHT,
    )


def curve(values: list[float]) -> str:
    """Place values between 0 and 1 from left to right in a sparkline, as SVG's points.

    >>> curve([0.5, 1.0]), curve([])
    ('0.0,11.0 90.0,0.0', '')
    """
    across = max(len(values) - 1, 1)
    return " ".join(
        f"{WIDTH * i / across:.1f},{HEIGHT * (1 - v):.1f}" for i, v in enumerate(values)
    )
