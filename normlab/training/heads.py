"""Finds the head of a network, which some settings of training leave out."""

import re
from typing import Any

import jax

from normlab.errors import UserError

HEADS = (("Dense",), ("FromSphere", "Factors"))
"""The layers that make a head, by the kinds of network."""

_INSTEAD = {"adaptive_clip": "use clip", "project": "leave out project"}


def outside_head(params: dict[str, Any], setting: str = "adaptive_clip") -> Any:
    """Return a tree of booleans: False for the head, which is the last outermost `Dense_`.

    On a sphere (`normlab.models.sphere`) it is the last `FromSphere_`, with its `Factors_`.

    Args:
        params: a model's parameters.
        setting: the setting of `train` that leaves out the head, for the error.

    Raises:
        UserError: there is no outermost `Dense_`, so the head is unknown.

    >>> outside_head({"Dense_0": {"kernel": 1.0}, "Dense_1": {"kernel": 2.0, "bias": 3.0}})
    {'Dense_0': {'kernel': True}, 'Dense_1': {'bias': False, 'kernel': False}}
    """
    for kinds in HEADS:
        found = {kind: _numbers(kind, params) for kind in kinds}
        if all(found.values()):
            head = {f"{kind}_{max(numbers)}" for kind, numbers in found.items()}
            return jax.tree_util.tree_map_with_path(
                lambda path, leaf, head=head: path[0].key not in head, params
            )
    raise UserError(
        f"{setting} leaves out the head, and this model has none: make it by "
        f"normlab.models.slots.classify, or {_INSTEAD[setting]}"
    )


def _numbers(kind: str, params: dict[str, Any]) -> list[int]:
    """Return the numbers of the outermost layers of a kind."""
    pattern = re.compile(rf"{kind}_(\d+)")
    return [int(found[1]) for name in params if (found := pattern.fullmatch(name))]
