"""Handles mapped axes: those of `shard_map`, and of `vmap` with a name."""

from jax import lax

from normlab.errors import AxisError


def shards_along(axis_name: str) -> int:
    """Return how many shards a mapped axis has.

    Raises:
        AxisError: there is no such axis here.

    >>> shards_along("batch")
    Traceback (most recent call last):
    normlab.errors.AxisError: axis_name='batch' is no mapped axis here: ...
    """
    try:
        return lax.axis_size(axis_name)
    except NameError as error:
        raise AxisError(
            f"axis_name={axis_name!r} is no mapped axis here: call this within jax.shard_map, or "
            f"jax.vmap(..., axis_name={axis_name!r}), or leave axis_name out"
        ) from error
