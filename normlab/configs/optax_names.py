"""Lists optax's optimisers and schedules, from its source so that a list needs no jax."""

import ast
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from normlab.catalogue import Entry, load_own
from normlab.errors import UserError, did_you_mean

REFUSED = {
    "lbfgs": "its update evaluates the loss again",
    "polyak_sgd": "its update needs the loss",
    "momo": "its update needs the loss",
    "momo_adam": "its update needs the loss",
    "sophia": "its update needs the loss as a function, for a Hessian",
    "sam": "it steps to another point and back, and is made of two optimisers",
    "mechanize": "it is made of another optimiser; name a function of your own that makes it",
    "schedule_free": "it is made of another optimiser; schedule_free_sgd and schedule_free_adamw "
    "are there, and a function of your own may make others",
    "dpsgd": "it needs the gradient of every example; train.private trains so with any optimiser",
}
"""The optimisers of optax that a plain training step cannot use, and why."""

UNSTORABLE = ("noisy_sgd", "galore")
"""The optimisers whose state a checkpoint cannot hold as it is: random keys, and empty arrays."""

NO_OPTIMIZERS = ("scale_by_", "schedule_free_eval_params", "differentially_private_aggregate",
                 "hutchinson_estimator_diag_hessian", "normalize", "reduce_on_plateau",
                 "split_real_and_imaginary")  # fmt: skip
"""Beginnings of the names in optax.contrib that are no optimisers."""


@dataclass(frozen=True)
class OptaxShelf:
    """The functions that optax offers of one kind, with the interface of a `Shelf`.

    Attributes:
        kind: the name of the kind in messages.
        modules: the modules that offer them, each with the ending of its sources' names.
        refused: the names that are not offered, each with the reason.
    """

    kind: str
    modules: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...] = ()

    @cache  # noqa: B019 (there are two shelves, and they last as long as the process)
    def entries(self) -> dict[str, Entry]:
        """Return every entry by name, sorted."""
        found = {
            name: Entry(name, module, name, "", module)
            for module, source in reversed(self.modules)
            for name in _exported(module, source)
            if name not in dict(self.refused) and not name.startswith(NO_OPTIMIZERS)
        }
        return dict(sorted(found.items()))

    def load(self, name: str) -> Callable[..., Any]:
        """Return the function called `name`, or the one that `package.module:function` names.

        Raises:
            UserError: there is none; the message has the nearest name, or the reason.
        """
        if ":" in name:
            return load_own(name)
        reason = dict(self.refused).get(name)
        if reason is not None:
            raise UserError(f"{self.kind} {name} cannot be used here: {reason}")
        entries = self.entries()
        if name not in entries:
            raise UserError(f"optax has no {self.kind} '{name}'; {did_you_mean(name, entries)}")
        return getattr(importlib.import_module(entries[name].module), name)


@cache
def _exported(module: str, source: str) -> list[str]:
    """List the lower-case names that a module imports from modules called `...<source>`."""
    spec = importlib.util.find_spec("optax")
    if spec is None or spec.origin is None:
        raise ImportError("optax is not installed")
    package = Path(spec.origin).parent
    files = [package / "__init__.py", package / "schedules" / "__init__.py"]
    if module == "optax.contrib":
        files = [package / "contrib" / "__init__.py"]
    names = set()
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith(source):
                names.update(alias.asname or alias.name for alias in node.names)
    return sorted(name for name in names if name.islower())


OPTIMIZERS = OptaxShelf(
    "optimizer", (("optax", "_src.alias"), ("optax.contrib", "")), tuple(REFUSED.items())
)
SCHEDULES = OptaxShelf("schedule", (("optax.schedules", "_schedule"),))
