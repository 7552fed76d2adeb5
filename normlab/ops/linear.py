"""Makes linear maps whose transpose is written by hand, and which take every transformation.

`jax.custom_vjp` lets one write a gradient, and takes `jax.jvp` away; `jax.custom_jvp` leaves the
gradient to the transpose that JAX derives. A `custom_jvp` whose tangent is `linear(...)` has both:
forward mode runs the map, reverse mode the transpose given here, and second derivatives go through
the one or the other as plain JAX.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def linear(
    forward: Callable[[Any, Any], Any],
    transpose: Callable[[Any, Any], Any],
    residuals: Any,
    tangents: Any,
) -> Any:
    """Compute `forward(residuals, tangents)`, which is linear in the tangents.

    Args:
        forward: any JAX function; differentiated as such with respect to the residuals.
        transpose: `transpose(residuals, cotangents)` of forward's results, shaped as `tangents`.
        residuals: a pytree of arrays; what reverse mode keeps.
        tangents: a pytree of arrays.

    >>> import jax.numpy as jnp
    >>> double = lambda k, t: k * t
    >>> f = lambda t: linear(double, double, jnp.array(2.0), t)
    >>> f(jnp.array(3.0)).item(), jax.grad(f)(jnp.array(3.0)).item()
    (6.0, 2.0)
    """
    kept, kept_tree = jax.tree.flatten(residuals)
    moved, moved_tree = jax.tree.flatten(tangents)

    def flat(function: Callable[[Any, Any], Any], second_tree: Any, *arrays: Any) -> list[Any]:
        first = jax.tree.unflatten(kept_tree, arrays[: len(kept)])
        second = jax.tree.unflatten(second_tree, arrays[len(kept) :])
        return jax.tree.leaves(function(first, second))

    jaxpr, shapes = jax.make_jaxpr(forward, return_shape=True)(residuals, tangents)
    out_tree = jax.tree.structure(shapes)
    results = _linear.bind(
        *kept,
        *moved,
        run=partial(flat, forward, moved_tree),
        transpose=partial(flat, transpose, out_tree),
        kept=len(kept),
        avals=tuple(jaxpr.out_avals),
    )
    return jax.tree.unflatten(out_tree, results)


_linear = Primitive("linear")
_linear.multiple_results = True


@_linear.def_impl
def _evaluate(*arrays: Any, run: Callable[..., list[Any]], **_: Any) -> list[Any]:
    return run(*arrays)


@_linear.def_abstract_eval
def _abstract(*_: Any, avals: tuple[Any, ...], **__: Any) -> list[Any]:
    return list(avals)


def _jvp(primals: Any, tangents: Any, *, kept: int, **params: Any) -> tuple[Any, Any]:
    results = _linear.bind(*primals, kept=kept, **params)
    if all(type(tangent) is ad.Zero for tangent in tangents[:kept]):
        moved = [ad.instantiate_zeros(tangent) for tangent in tangents[kept:]]
        return results, _linear.bind(*primals[:kept], *moved, kept=kept, **params)
    return jax.jvp(params["run"], tuple(primals), tuple(ad.instantiate_zeros(t) for t in tangents))


def _transpose(
    cotangents: Any, *arrays: Any, transpose: Callable[..., list[Any]], kept: int, **params: Any
) -> list[Any]:
    given = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    found = transpose(*arrays[:kept], *given)
    # What is no unknown of this transposition was a tangent known to be zero.
    asked = map(ad.is_undefined_primal, arrays[kept:])
    return [None] * kept + [one if ask else None for one, ask in zip(found, asked, strict=True)]


def _batch(arrays: Any, axes: Any, *, run: Callable[..., list[Any]], **_: Any) -> tuple[Any, Any]:
    results = jax.vmap(run, in_axes=tuple(axes))(*arrays)
    return results, [0] * len(results)


ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_evaluate, multiple_results=True))
