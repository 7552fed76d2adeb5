"""Spreads arrays over a mesh: what a normaliser does there is what it does anywhere.

The axes of a mesh are automatic, explicit or manual (`jax.sharding.AxisType`). On automatic ones
XLA decides how values are spread, and needs nothing from us. On explicit ones, which
`jax.make_mesh` gives today, the type of an array says how it is spread, and an operation that cuts
or merges a spread axis is refused: a reshape into groups, a slice, a window. Normalisers are made
of these, so each of them takes the explicit axes as automatic while it runs. The types outside
stay whole: a result is spread as its input is, and a gradient as what it is of. Within `shard_map`
the axes are manual: a normaliser sees one shard, and `axis_name` joins them.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

F = TypeVar("F", bound=Callable[..., Any])


def on_any_mesh(function: F, like: Callable[..., Any] = lambda first, *_: first) -> F:
    """Make `function` take arrays on a mesh with explicit axes too.

    Args:
        function: arrays, and whatever else, to arrays.
        like: of the positional arguments, the arrays as which the results are spread; the first
            one unless told otherwise. As many as there are results, each of its result's rank; or
            a `PartitionSpec` in place of an array.

    >>> import jax.numpy as jnp
    >>> from jax.sharding import PartitionSpec
    >>> mesh = jax.make_mesh((1,), ("devices",), axis_types=(jax.sharding.AxisType.Explicit,))
    >>> turned = on_any_mesh(lambda x: x.reshape(2, 2).T.reshape(4))
    >>> x = jax.device_put(jnp.arange(4.0), jax.NamedSharding(mesh, PartitionSpec("devices")))
    >>> turned(x).tolist(), jax.typeof(turned(x)).sharding.spec == PartitionSpec("devices")
    ([0.0, 2.0, 1.0, 3.0], True)
    """
    signature = inspect.signature(function)

    @wraps(function)
    def anywhere(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        one = next((leaf for leaf in leaves if is_on_explicit(leaf)), None)
        if one is None:
            return function(*args, **kwargs)

        def automatic(*arrays: Array) -> Any:
            for i, array in zip(places, arrays, strict=True):
                leaves[i] = array
            call = jax.tree.unflatten(tree, leaves)
            return function(*call[0], **call[1])

        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Array)]
        mesh = jax.typeof(one).sharding.mesh
        wanted = like(*signature.bind(*args, **kwargs).args)
        return jax.sharding.auto_axes(
            automatic,
            axes=mesh.explicit_axes,
            out_sharding=jax.tree.map(
                lambda leaf: NamedSharding(mesh, _spec(leaf)),
                wanted,
                is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
            ),
        )(*(_beside(one, leaves[i]) for i in places))

    return cast(F, anywhere)


def values(array: Any) -> np.ndarray:
    """Return the values of an array, also those that lie on other hosts.

    Every process must call it, in the same order, for an array that is cut over several hosts.

    >>> values(jax.numpy.arange(2)).tolist()
    [0, 1]
    """
    elsewhere = isinstance(array, Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    )
    return np.asarray(multihost_utils.process_allgather(array, tiled=True) if elsewhere else array)


def by_example(x: Array, *_: Any) -> PartitionSpec:
    """Return how a result of any rank is spread whose first axis is that of `x`, and no other."""
    return PartitionSpec(*_spec(x)[:1])


def is_on_explicit(leaf: Any) -> bool:
    """Return whether the type of an array names a mesh with explicit axes."""
    return isinstance(leaf, Array) and bool(jax.typeof(leaf).sharding.mesh.explicit_axes)


def _spec(leaf: Any) -> PartitionSpec:
    """Return how an array's type is spread over explicit axes."""
    if isinstance(leaf, PartitionSpec):
        return leaf
    return jax.typeof(leaf).sharding.spec if is_on_explicit(leaf) else PartitionSpec()


def _beside(one: Array, leaf: Array) -> Array:
    """`leaf` on the mesh of `one`, whole on every device; as it is where it lies there.

    A gradient of something that is on no mesh would be cast back to no mesh, which `vmap` over an
    axis of the mesh cannot do. A product with one, which XLA takes out, needs no cast.
    """
    if is_on_explicit(leaf):
        return leaf
    always = (one.astype(bool) | True).all()  # of the type that is wanted: on the mesh, and whole
    return leaf * always.astype(leaf.dtype)
