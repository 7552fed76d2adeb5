"""Optax's optimisers and schedules by name, read from its source so that a list needs no jax."""

import ast
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from normlab.catalogue import Entry
from normlab.errors import UserError, did_you_mean

NEEDS_MORE_THAN_GRADIENTS = frozenset({"lbfgs", "polyak_sgd"})
"""Their update must evaluate the loss again, which a plain training step does not offer."""


@dataclass(frozen=True)
class OptaxShelf:
    """The functions that one of optax's modules offers, with the interface of a `Shelf`."""

    kind: str
    module: str
    source: str
    wanted: Callable[[str], bool]

    def entries(self) -> dict[str, Entry]:
        """Every entry by name, sorted."""
        return {
            name: Entry(name, self.module, name, "", self.module)
            for name in _exported(self.source)
            if self.wanted(name)
        }

    def load(self, name: str) -> Callable[..., Any]:
        """The function called `name`.

        Raises:
            UserError: there is none; the message has the nearest name.
        """
        entries = self.entries()
        if name not in entries:
            raise UserError(f"optax has no {self.kind} '{name}'; {did_you_mean(name, entries)}")
        return getattr(importlib.import_module(self.module), name)


@cache
def _exported(source: str) -> list[str]:
    """The lower-case names that optax's `__init__` imports from a module called `...<source>`."""
    spec = importlib.util.find_spec("optax")
    if spec is None or spec.origin is None:
        raise ImportError("optax is not installed")
    package = Path(spec.origin).parent
    files = [package / "__init__.py", package / "schedules" / "__init__.py"]
    names = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(source):
                names.update(alias.asname or alias.name for alias in node.names)
    return sorted(name for name in names if name.islower())


OPTIMIZERS = OptaxShelf(
    "optimizer", "optax", "_src.alias", lambda name: name not in NEEDS_MORE_THAN_GRADIENTS
)
SCHEDULES = OptaxShelf(
    "schedule",
    "optax.schedules",
    "_schedule",
    lambda name: True,
)
