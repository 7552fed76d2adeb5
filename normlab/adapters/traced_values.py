"""Follows the values of a trace through the calls inside it, back to what they were made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal, jaxprs_in_params

SAME_CHANNELS = {"add", "add_any", "sub", "neg", "name", "copy", "convert_element_type", "pad"}
SAME_CHANNELS |= {"concatenate", "slice", "squeeze", "expand_dims", "broadcast_in_dim", "reshape"}
SAME_CHANNELS |= {"transpose", "stop_gradient", "optimization_barrier", "rev"}
"""Operations after which a mean of zero over the last axis still is one, if that axis is kept."""


@dataclass(eq=False)
class Node:
    """A value of the trace: what made it, of which values, and its shape."""

    made_by: str
    inputs: tuple["Node", ...]
    shape: tuple[int, ...]
    params: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the name that `checkpoint_name` gave it, or nothing."""
        return str(self.params.get("name", "")) if self.made_by == "name" else ""


def nodes(jaxpr: Any, inputs: list[Node], consts: Any = ()) -> Iterator[Node]:
    """Go through a trace and those inside it; the last values are those that it returns."""
    yield from _run(jaxpr, inputs, [_constant(value) for value in consts])[1]


def _run(jaxpr: Any, inputs: list[Node], consts: list[Node]) -> tuple[list[Node], list[Node]]:
    """Return the nodes that a trace returns, and all of its nodes."""
    made: dict[Any, Node] = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True)
    )
    every: list[Node] = []

    def node_of(value: Any) -> Node:
        return _constant(value.val) if isinstance(value, Literal) else made[value]

    for equation in jaxpr.eqns:
        taken = [node_of(value) for value in equation.invars]
        inner = list(jaxprs_in_params(equation.params))
        if len(inner) == 1 and len(inner[0].invars) == len(taken) and not inner[0].constvars:
            given, more = _run(inner[0], taken, [])
            every += more
        else:
            kind = equation.primitive.name
            if kind in SAME_CHANNELS and all(one.made_by == "zero" for one in taken):
                kind = "zero"
            given = [
                Node(kind, tuple(taken), tuple(var.aval.shape), equation.params)
                for var in equation.outvars
            ]
            every += given
        made.update(zip(equation.outvars, given, strict=True))
    return [node_of(value) for value in jaxpr.outvars], every


def _constant(value: Any) -> Node:
    zero = not isinstance(value, Tracer) and not np.any(np.asarray(value))
    return Node("zero" if zero else "a constant", (), np.shape(value), {})


def keeps_channels(node: Node) -> bool:
    """Return whether a mean of zero over the last axis of what comes in is one of what comes out.

    It is if the operation only moves, repeats or adds values, and keeps the last axis.
    """
    if node.made_by not in SAME_CHANNELS:
        return False
    last, shapes = node.shape[-1:], [one.shape for one in node.inputs if one.made_by != "zero"]
    kind, given = node.made_by, node.params
    if kind == "broadcast_in_dim":
        axes = given["broadcast_dimensions"]
        return bool(axes) and axes[-1] == len(node.shape) - 1 and shapes[0][-1:] == last
    if kind == "transpose":
        return given["permutation"][-1] == len(node.shape) - 1
    if kind == "concatenate" or kind == "rev":
        axes = [given["dimension"]] if kind == "concatenate" else given["dimensions"]
        return len(node.shape) - 1 not in axes
    return all(shape[-1:] == last for shape in shapes)
