"""Takes the sums over positions that batch, group and instance normalisation need.

A program goes through a part of the positions for some channels. Parts are merged by JAX, because
they are small.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from normlab.core import Array
from normlab.ops.pallas.blocks import BLOCKS, IN_REGISTERS, Block, call, whole

WIDE = 64
"""Channels of a program: neighbours in memory, which threads read together."""


def moments(x: Array, shift: Array, centred: bool, interpret: bool) -> tuple[Array, Array]:
    """Compute for each channel the mean of `x - shift`, and the mean square about that mean.

    Args:
        x: `(N, P, C)`.
        shift: `(N, C)`, float32: a value near the channel's.
        centred: False for the mean square about zero; the means are zero then.
        interpret: whether JAX carries out the kernel.

    Returns:
        Two arrays `(N, C)`, float32.
    """
    parts = _Parts(x.shape)
    mean, m2 = parts.call(partial(_moments, centred, parts), interpret)(parts.flat(x), shift)
    share = parts.counts()[None, :, None] / x.shape[1]
    total = (mean * share).sum(1)
    spread = m2 / x.shape[1] + share * (mean - total[:, None]) ** 2
    return total, spread.sum(1)


def products(
    dy: Array, x: Array, shift: Array, offset: Array, interpret: bool
) -> tuple[Array, Array]:
    """Sum dy, and `dy * (x - mean)`, over the positions of each channel.

    Args:
        dy, x: `(N, P, C)`.
        shift, offset: `(N, C)`; the mean is their sum.
        interpret: whether JAX carries out the kernel.

    Returns:
        Two arrays `(N, C)`, float32.
    """
    parts = _Parts(x.shape)
    call_it = parts.call(partial(_products, parts), interpret)
    found = call_it(parts.flat(dy), parts.flat(x), shift, offset)
    return found[0].sum(1), found[1].sum(1)


class _Parts:
    """How programs share an array `(N, P, C)`, which they see as `(N * P, C)`."""

    def __init__(self, shape: tuple[int, ...]):
        self.examples, self.positions, self.channels = shape
        self.width = min(WIDE, whole(self.channels))
        self.high = IN_REGISTERS // self.width
        self.programs = pl.cdiv(self.positions, self.high * BLOCKS)

    def flat(self, x: Array) -> Array:
        """Return the array as the programs see it."""
        return x.reshape(-1, self.channels)

    def call(self, kernel: Any, interpret: bool) -> Any:
        """Make the function whose two results are `(N, programs, C)`."""
        rows = self.examples * self.programs
        out = jax.ShapeDtypeStruct((rows, self.channels), jnp.float32)
        grid = (self.examples, self.programs, pl.cdiv(self.channels, self.width))
        run = call(kernel, [out, out], grid, interpret)
        shape = self.examples, self.programs, self.channels
        return lambda *arrays: [found.reshape(shape) for found in run(*arrays)]

    def counts(self) -> Array:
        """Return how many positions each program goes through."""
        each = self.high * BLOCKS
        return jnp.clip(self.positions - each * jnp.arange(self.programs), 0, each)

    def here(self) -> tuple[Any, Any, Any]:
        """Return this program's example, its part of the positions, and its first channel."""
        return pl.program_id(0), pl.program_id(1), pl.program_id(2) * self.width

    def block(self, here: tuple[Any, Any, Any], number: Any) -> Block:
        """Return a block of the array."""
        example, part, column = here
        start = example * self.positions
        row = start + (part * BLOCKS + number) * self.high
        ends = start + self.positions, self.channels
        return Block((row, column), (self.high, self.width), ends)

    def of_example(self, here: tuple[Any, Any, Any]) -> Block:
        """Return a program's part of an array `(N, C)`."""
        example, _, column = here
        return Block((example, column), (1, self.width), (self.examples, self.channels))

    def result(self, here: tuple[Any, Any, Any]) -> Block:
        """Return a program's part of a result."""
        example, part, column = here
        ends = self.examples * self.programs, self.channels
        return Block((example * self.programs + part, column), (1, self.width), ends)


def _moments(
    centred: bool, parts: _Parts, x_ref: Any, shift_ref: Any, mean_ref: Any, m2_ref: Any
) -> None:
    here = parts.here()
    shift = parts.of_example(here).read(shift_ref)

    def one(number: Any, before: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, mean, m2 = before
        block = parts.block(here, number)
        x = block.read(x_ref)
        if not centred:
            return count, mean, m2 + (x * x).sum(0, keepdims=True)
        new = block.counts[0].astype(jnp.float32).sum()
        x = block.among_its_own(x - shift)
        own = x.sum(0, keepdims=True) / jnp.maximum(new, 1)
        spread = (block.among_its_own(x - own) ** 2).sum(0, keepdims=True)
        total = count + new
        moved = (own - mean) * (new / jnp.maximum(total, 1))
        return total, mean + moved, m2 + spread + (own - mean) * moved * count

    nothing = jnp.zeros((1, parts.width), jnp.float32)
    _, mean, m2 = lax.fori_loop(0, BLOCKS, one, (jnp.float32(0), nothing, nothing))
    parts.result(here).write(mean_ref, mean)
    parts.result(here).write(m2_ref, m2)


def _products(
    parts: _Parts, dy_ref: Any, x_ref: Any, shift_ref: Any, offset_ref: Any, *out: Any
) -> None:
    here = parts.here()
    shift, offset = (parts.of_example(here).read(ref) for ref in (shift_ref, offset_ref))

    def one(number: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        block = parts.block(here, number)
        dy = block.read(dy_ref)
        product = block.among_its_own(dy * ((block.read(x_ref) - shift) - offset))
        return sums[0] + dy.sum(0, keepdims=True), sums[1] + product.sum(0, keepdims=True)

    nothing = jnp.zeros((1, parts.width), jnp.float32)
    for ref, values in zip(out, lax.fori_loop(0, BLOCKS, one, (nothing, nothing)), strict=True):
        parts.result(here).write(ref, values)
