"""Reads from a trace the order in which weights meet the data, and finds flattened images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Var, jaxprs_in_params

REARRANGING = {"dot_general", "conv_general_dilated", "transpose", "sort", "gather", "rev"}
"""Operations that may move elements to other places and keep the shape."""

VECTOR: tuple[int, ...] = ()
"""This shape stands for data that is no image: features of a dense layer, statistics, words."""


class Meetings:
    """The order in which the weights of a network meet its data.

    A result computed from weights alone (a cast, a standardised kernel) counts as those weights.

    Attributes:
        order: names of the weights, by their first meeting.
        flattened: name of a weight that meets a flattened image -> the image's shape.
        resized: the shapes of data before and after each `jax.image.resize`.

    >>> import jax, jax.numpy as jnp
    >>> first, second = jnp.ones((12, 2)), jnp.ones((2, 2))
    >>> def call(second, first, x):
    ...     return x.reshape(len(x), -1) @ first @ (2 * second)
    >>> traced = jax.make_jaxpr(call)(second, first, jnp.ones((5, 2, 2, 3)))
    >>> met = Meetings(traced.jaxpr, ["second", "first", None])
    >>> met.order, met.flattened
    (['first', 'second'], {'first': (2, 2, 3)})
    """

    def __init__(self, jaxpr: Any, names: Sequence[str | None]):
        """Read a trace; `names` has one for each of its inputs, and None for its data."""
        self.order: list[str] = []
        self.flattened: dict[str, tuple[int, ...]] = {}
        self.resized: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        weights: dict[Any, frozenset[str]] = {variable: frozenset() for variable in jaxpr.constvars}
        for variable, name in zip(jaxpr.invars, names, strict=True):
            if name is not None:
                weights[variable] = frozenset({name} - {""})
        data = [variable for variable in jaxpr.invars if variable not in weights]
        self._read(jaxpr, weights, {value: VECTOR for value in data if len(value.aval.shape) < 3})

    def _read(
        self, jaxpr: Any, weights: dict[Any, frozenset[str]], flat: dict[Any, tuple[int, ...]]
    ) -> None:
        """Go through the operations of a trace.

        Args:
            jaxpr: the trace.
            weights: each variable computed from weights alone -> those weights. All else is data.
            flat: each variable that holds an image or a vector, element by element -> its shape.
        """
        for equation in jaxpr.eqns:
            inputs = [value for value in equation.invars if isinstance(value, Var)]
            if equation.params.get("name") == "_resize":
                shapes = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
                self.resized.append(shapes)
            inner = _inner(equation)
            for one, theirs in inner:
                within = {a: weights[b] for a, b in theirs if b in weights}
                within |= {a: frozenset() for a in one.constvars}
                seen = {a: flat[b] for a, b in theirs if b in flat}
                self._read(one, within, seen)
                for out, result in zip(equation.outvars, one.outvars, strict=False):
                    if isinstance(result, Var) and result in seen:
                        flat[out] = seen[result]
                    elif isinstance(result, Var) and result in within:
                        weights[out] = within[result]
            data: list[Any] = [value for value in inputs if value not in weights]
            if not data:
                whole = frozenset().union(*(weights[value] for value in inputs))
                weights.update(dict.fromkeys(equation.outvars, whole))
                continue
            if inner:
                continue
            shapes = [flat[value] for value in data if value in flat]
            for value in inputs:
                for name in sorted(weights.get(value, ())):
                    self._meet(name, shapes)
            for out in equation.outvars:
                image = _image_of(equation, out, data, flat)
                if image is not None:
                    flat[out] = image

    def _meet(self, name: str, shapes: list[tuple[int, ...]]) -> None:
        if name not in self.order:
            self.order.append(name)
        for shape in shapes:
            if shape != VECTOR:
                self.flattened.setdefault(name, shape)


def _image_of(
    equation: Any, out: Any, data: list[Any], flat: Mapping[Any, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the shape of the image whose elements a result holds, or `VECTOR`, or None.

    `(N, H, W, C)` to `(N, H * W * C)` flattens an image. `(N, C)` to `(N, G, C / G)` and back, as
    in group norm, leaves a vector. A result of vectors alone is a vector, unless a convolution
    makes it.
    """
    name, before, after = equation.primitive.name, data[0].aval.shape, out.aval.shape
    if name == "conv_general_dilated":
        return None
    if name == "reshape":
        several = len(before) > 2 and math.prod(before[1:-1]) > 1 and before[-1] > 1
        flattens = several and len(after) == 2 and before[0] == after[0]
        return flat.get(data[0], tuple(before[1:]) if flattens else None)
    if name not in REARRANGING:
        for value in data:
            if flat.get(value) and value.aval.shape == after:
                return flat[value]
    sums = name == "dot_general" or name.startswith("reduce_")
    if all(flat.get(value) == VECTOR for value in data) or (sums and len(after) < 3):
        return VECTOR
    return None


def _inner(equation: Any) -> list[tuple[Any, list[tuple[Any, Any]]]]:
    """List the traces inside an operation, each with its inputs and the matching ones outside."""
    found = []
    for one in jaxprs_in_params(equation.params):
        more = len(equation.invars) - len(one.invars)
        if more == 0 or (more > 0 and equation.primitive.name == "cond"):
            pairs = zip(one.invars, equation.invars[more:], strict=True)
            found.append((one, [(a, b) for a, b in pairs if isinstance(b, Var)]))
    return found
