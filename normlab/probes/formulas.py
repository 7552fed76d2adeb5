"""Formulas that several probes share."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
from jax import lax

from normlab.core import Array

Carry = TypeVar("Carry")

SMALLEST = 1.1754944e-38
"""The smallest normal float32; it replaces zero in logarithms."""


def norm(tree: Any) -> Array:
    """Compute the Euclidean norm of all numbers in a tree, float32.

    >>> norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}).item()
    5.0
    """
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
    # The numbers are divided by the largest, so that squares neither overflow nor underflow.
    top = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
    top = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    return top * jnp.sqrt(jnp.stack([jnp.sum((leaf / top) ** 2) for leaf in leaves]).sum())


def dot(one: Any, other: Any) -> Array:
    """Compute the inner product of two trees of the same structure, float32."""
    products = jax.tree.map(
        lambda a, b: jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32)), one, other
    )
    return jnp.stack(jax.tree.leaves(products)).sum()


def ratio(above: Array, below: Array) -> Array:
    """Compute `above / below`, or zero where `below` is zero."""
    return jnp.where(below == 0, 0, above / jnp.where(below == 0, 1, below))


def cosine(one: Any, other: Any) -> Array:
    """Compute the cosine of the angle between two trees, or zero if one of them is zero.

    >>> f"{cosine([jnp.array([1.0, 0.0])], [jnp.array([1.0, 1.0])]):.3f}"
    '0.707'
    """
    size_one, size_other = norm(one), norm(other)
    one = jax.tree.map(lambda leaf: ratio(leaf.astype(jnp.float32), size_one), one)
    other = jax.tree.map(lambda leaf: ratio(leaf.astype(jnp.float32), size_other), other)
    return dot(one, other)


def spread(values: Array) -> Array:
    """Compute the standard deviation of log10: the spread of positive numbers in powers of ten.

    It is 0 if all numbers are equal, and 1 if they typically differ from their geometric mean by a
    factor of ten. Unlike the ratio of the largest to the smallest, it does not grow with their
    number, so networks of different depth can be compared. A zero counts as the smallest float32
    (1e-38) and so always dominates: a layer that does not move learns infinitely more slowly.

    Args:
        values: `(L,)`, not negative.

    >>> spread(jnp.array([0.1, 10.0])).item(), spread(jnp.array([2.0, 2.0])).item()
    (1.0, 0.0)
    """
    return jnp.std(jnp.log10(jnp.maximum(values, SMALLEST)))


def scan(
    one: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, rows: Any
) -> tuple[Carry, Any]:
    """Run `lax.scan` within `jit`, and a Python loop outside, where `one` may call jitted code.

    XLA compiles a loop's body once, but on a CPU convolutions inside a loop miss its fast kernels.
    A gradient that is compiled by itself and called repeatedly is as fast as in training.

    >>> total, squares = scan(lambda t, x: (t + x, x**2), jnp.zeros(()), jnp.arange(1.0, 4.0))
    >>> total.item(), squares.tolist()
    (6.0, [1.0, 4.0, 9.0])
    """
    if isinstance(jnp.zeros(()), jax.core.Tracer):
        return lax.scan(one, carry, rows)
    found = []
    for number in range(len(jax.tree.leaves(rows)[0])):
        carry, result = one(carry, jax.tree.map(lambda leaf: leaf[number], rows))  # noqa: B023
        found.append(result)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
