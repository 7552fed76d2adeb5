"""The parts that the kernels share: blocks whose sides are powers of two, and what lies outside.

Triton takes no other blocks. What lies outside of the array is not read, counts as zero, and is not
written.
"""

from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from normlab.core import Array

IN_REGISTERS = 1 << 12
"""Values of one array that a program holds at once: 32 for each thread of four warps."""

BLOCKS = 8
"""Blocks that a program goes through, so that its sums of channels are small beside the array."""


def whole(size: int) -> int:
    """Return the least power of two that is not below `size`.

    >>> whole(48), whole(64)
    (64, 64)
    """
    return 1 << (size - 1).bit_length()


class Block:
    """A block of a matrix, from some row and some column on.

    Args:
        start: the place of its first row and of its first column.
        sides: how many rows and columns it has; powers of two.
        ends: how many rows and columns count.
    """

    def __init__(self, start: tuple[Any, Any], sides: tuple[int, int], ends: tuple[Any, Any]):
        self.rows = start[0] + jnp.arange(sides[0])
        self.columns = start[1] + jnp.arange(sides[1])
        self.counts = self.rows < ends[0], self.columns < ends[1]
        self.inside = self.counts[0][:, None] & self.counts[1][None]

    def read(self, ref: Any) -> Array:
        """Read it from a matrix as float32, with zeros outside."""
        found = triton.load(ref.at[self._places()], mask=self.inside, other=0)
        return found.astype(jnp.float32)

    def read_row(self, ref: Any) -> Array:
        """Read its part of a vector that has a value for each column: `(1, columns)`."""
        return triton.load(ref.at[self.columns], mask=self.counts[1], other=0)[None]

    def read_column(self, ref: Any) -> Array:
        """Read its part of a vector that has a value for each row: `(rows, 1)`."""
        found = triton.load(ref.at[self.rows], mask=self.counts[0], other=0)
        return found.astype(jnp.float32)[:, None]

    def write(self, ref: Any, values: Array) -> None:
        """Write it to a matrix, in the matrix's dtype."""
        triton.store(ref.at[self._places()], values.astype(ref.dtype), mask=self.inside)

    def write_column(self, ref: Any, values: Array) -> None:
        """Write `(rows, 1)` to a vector."""
        triton.store(ref.at[self.rows], values.reshape(-1), mask=self.counts[0])

    def among_its_own(self, values: Array) -> Array:
        """Return the values with zeros outside."""
        return jnp.where(self.inside, values, 0)

    def _places(self) -> tuple[Array, Array]:
        sides = self.inside.shape
        rows = jnp.broadcast_to(self.rows[:, None], sides)
        return rows, jnp.broadcast_to(self.columns[None], sides)


def call(kernel: Any, out_shape: Any, grid: tuple[int, ...], interpret: bool) -> Any:
    """Make the JAX function of a kernel: the Triton backend's, or JAX's own that interprets it."""
    return pl.pallas_call(
        kernel,
        out_shape=out_shape,
        grid=grid,
        interpret=interpret,
        compiler_params=None if interpret else triton.CompilerParams(num_warps=4),
    )
