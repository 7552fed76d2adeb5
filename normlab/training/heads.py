"""Finds the head of a network, which some settings of training leave out."""

import re
from typing import Any

import jax

from normlab.errors import UserError

_INSTEAD = {"adaptive_clip": "use clip", "project": "leave out project"}


def outside_head(params: dict[str, Any], setting: str = "adaptive_clip") -> Any:
    """Return a tree of booleans: False for the head, which is the last outermost `Dense_`.

    Args:
        params: a model's parameters.
        setting: the setting of `train` that leaves out the head, for the error.

    Raises:
        UserError: there is no outermost `Dense_`, so the head is unknown.

    >>> outside_head({"Dense_0": {"kernel": 1.0}, "Dense_1": {"kernel": 2.0, "bias": 3.0}})
    {'Dense_0': {'kernel': True}, 'Dense_1': {'bias': False, 'kernel': False}}
    """
    numbers = [int(name[6:]) for name in params if re.fullmatch(r"Dense_\d+", name)]
    if not numbers:
        raise UserError(
            f"{setting} leaves out the head, and this model has none: make it by "
            f"normlab.models.slots.classify, or {_INSTEAD[setting]}"
        )
    head = f"Dense_{max(numbers)}"
    return jax.tree_util.tree_map_with_path(lambda path, leaf: path[0].key != head, params)
