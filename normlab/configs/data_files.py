"""Looks at the files of the data on this machine: what they decide, and how they are read."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from normlab.configs.build import described
from normlab.errors import UserError

Settle = Callable[[dict[str, Any]], dict[str, Any]]
"""A function of sections that returns the arguments of the data that the files decide."""


def prepare_data(runs: Iterable[dict[str, Any]]) -> list[str]:
    """Decode the data of runs once, before the first of them needs it.

    Returns:
        Sentences on how a person's own files are read; none for other datasets.

    Raises:
        UserError: the data cannot be used.
    """
    remarks = []
    for sections in {repr(one["data"]): one for one in runs}.values():
        data = described(sections)
        if hasattr(data, "prepare"):
            data.prepare()
            remarks += data.remarks()
    return remarks


def remarks(runs: Iterable[dict[str, Any]]) -> list[str]:
    """Return sentences on how a person's own files are read, without decoding them."""
    found = []
    for sections in {repr(one["data"]): one for one in runs}.values():
        data = described(sections)
        found += data.remarks() if hasattr(data, "remarks") else []
    return found


def settled(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the data that the files on this machine decide.

    Raises:
        UserError: the files are damaged, or cannot give what is asked for.
    """
    data = described(sections)
    if not hasattr(data, "settled"):
        return {}
    found = data.settled()
    names = [field.name for field in fields(found)]
    return {n: getattr(found, n) for n in names if getattr(found, n) != getattr(data, n)}


def settled_once() -> Settle:
    """Return `settled` for the runs of one sweep: files that several runs read are looked at once.

    To list and to compare the files of a large folder takes long, and it has the same result for
    every run.
    """
    known: dict[str, dict[str, Any] | UserError] = {}

    def settle(sections: dict[str, Any]) -> dict[str, Any]:
        key = repr(sections["data"])
        if key not in known:
            try:
                known[key] = settled(sections)
            except UserError as error:
                known[key] = error
        found = known[key]
        if isinstance(found, UserError):
            raise found
        return found

    return settle
