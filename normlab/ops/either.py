"""Computes a function by a call that only this process has, and by JAX wherever that cannot serve.

A compiled call has no derivative, no rule for `vmap`, and no place in a program that is exported to
be run elsewhere. There the same function in JAX takes its place.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def either(compiled: Callable[..., Any], plain: Callable[..., Any], *arguments: Any) -> Any:
    """Compute `compiled(*arguments)`, or `plain` of them in what is derived, batched or exported.

    Args:
        compiled: a JAX function; its results are shaped as those of `plain`.
        plain: the same function, differentiable and batchable.
        arguments: pytrees of arrays.

    >>> import jax.numpy as jnp
    >>> either(lambda x: x + x, lambda x: 2 * x, jnp.array(3.0)).item()
    6.0
    """
    arrays, tree = jax.tree.flatten(arguments)

    def flat(function: Callable[..., Any], *arrays: Any) -> list[Any]:
        return jax.tree.leaves(function(*jax.tree.unflatten(tree, arrays)))

    jaxpr, shapes = jax.make_jaxpr(plain, return_shape=True)(*arguments)
    results = _either.bind(
        *arrays,
        compiled=partial(flat, compiled),
        plain=partial(flat, plain),
        avals=tuple(jaxpr.out_avals),
    )
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


_either = Primitive("either")
_either.multiple_results = True


@_either.def_impl
def _evaluate(*arrays: Any, compiled: Callable[..., list[Any]], **_: Any) -> list[Any]:
    return compiled(*arrays)


@_either.def_abstract_eval
def _abstract(*_: Any, avals: tuple[Any, ...], **__: Any) -> list[Any]:
    return list(avals)


def _jvp(primals: Any, tangents: Any, *, plain: Any, **_: Any) -> tuple[Any, Any]:
    return jax.jvp(plain, tuple(primals), tuple(ad.instantiate_zeros(t) for t in tangents))


def _batch(arrays: Any, axes: Any, *, plain: Any, **_: Any) -> tuple[Any, Any]:
    results = jax.vmap(plain, in_axes=tuple(axes))(*arrays)
    return results, [0] * len(results)


def _lower(context: Any, *arrays: Any, compiled: Any, plain: Any, **_: Any) -> Any:
    exported = context.module_context.lowering_parameters.for_export
    lower = mlir.lower_fun(plain if exported else compiled, multiple_results=True)
    return lower(context, *arrays)


ad.primitive_jvps[_either] = _jvp
batching.primitive_batchers[_either] = _batch
mlir.register_lowering(_either, _lower)
