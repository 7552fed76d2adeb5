"""Defines the contract of an engine: where the runs of a sweep are made.

An engine is a frozen dataclass marked `@engine`, in a file of this folder; its fields are its
options. It gives places, each an executor of `concurrent.futures` that makes one run at a time. An
executor that takes several at once is given several times.

What is submitted is a function of normlab's and one mapping of texts, numbers, lists and mappings,
so an executor may send it to any process that has normlab and sees the folder of the runs.

A package's name that a user gives (`my_module:factory`) is any callable that returns an executor.
"""

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from normlab.catalogue import ENGINES
from normlab.errors import UserError

T = TypeVar("T", bound=type)


def engine(cls: T) -> T:
    """Mark a frozen dataclass as an engine of the catalogue."""
    cls.catalogue_kind = "engine"  # type: ignore[attr-defined]
    return cls


class Engine(Protocol):
    """Says what an engine has; `script` may be left out."""

    def places(self, jobs: int | None, folder: Path) -> Sequence[Executor]:
        """Give a place for each run that is made at once, and begin nothing that costs much.

        Args:
            jobs: how many runs are made at once; None for as many as the engine has room for.
            folder: the experiment's folder, for files of the engine's own.
        """
        ...

    def script(self, folder: Path) -> str:
        """Return the job that would be submitted, as text, without submitting it."""
        ...


@dataclass(frozen=True)
class OwnEngine:
    """Makes runs on the executor that a user's own function returns.

    Attributes:
        make: the function.
        options: its arguments.
    """

    make: Callable[..., Executor]
    options: dict[str, Any] = field(default_factory=dict)

    def places(self, jobs: int | None, folder: Path) -> Sequence[Executor]:
        """Call the function; there are as many places as `jobs`, or as it has workers."""
        try:
            executor = self.make(**self.options)
        except TypeError as error:
            raise UserError(f"engine: {error}") from error
        if not callable(getattr(executor, "submit", None)):
            raise UserError(
                "engine: the function must return an executor of concurrent.futures, found "
                f"{type(executor).__name__}"
            )
        count = jobs or getattr(executor, "_max_workers", None)
        if count is None:
            raise UserError("engine: --jobs must say how many runs are made at once")
        return [executor] * count


def open_engine(call: dict[str, Any]) -> Any:
    """Return the engine of a call `{name: ..., options}`, whose options have been checked.

    >>> open_engine({"name": "local"})
    Local(gpus=1)
    """
    name, options = call["name"], {k: v for k, v in call.items() if k != "name"}
    called = ENGINES.load(name)
    return OwnEngine(called, options) if ":" in name else called(**options)


def package(name: str, extra: str) -> Any:
    """Import a package that an engine needs.

    Raises:
        UserError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"this engine needs the package {name} ({error}): pip install 'normlab[{extra}]'"
        ) from error
