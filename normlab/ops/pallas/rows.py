"""Normalises the rows of a matrix: layer and RMS normalisation, forward and backward.

A program holds whole rows in registers, so each is read once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from normlab.core import Array
from normlab.ops.pallas.blocks import BLOCKS, IN_REGISTERS, Block, call, whole


def forward(
    x: Array, scale: Array, bias: Array, eps: float, centred: bool, interpret: bool
) -> list[Array]:
    """Compute `(x - mean) / sqrt(variance + eps) * scale + bias`, and the statistics.

    Args:
        x: `(R, C)`.
        scale, bias: `(C,)`, float32.
        eps: added to the variance.
        centred: False for the mean square about zero in the place of the variance.
        interpret: whether JAX carries out the kernel.

    Returns:
        The output, then shift, offset and variance, `(R,)` each.
    """
    count, high = x.shape[0], _rows_at_once(x)
    each = jax.ShapeDtypeStruct((count,), jnp.float32)
    out = [jax.ShapeDtypeStruct(x.shape, x.dtype), each, each, each]
    kernel = partial(_forward, eps, centred, high)
    return call(kernel, out, (pl.cdiv(count, high),), interpret)(x, scale, bias)


def cotangent(
    x: Array,
    dy: Array,
    scale: Array,
    of_rows: list[Array],
    eps: float,
    centred: bool,
    interpret: bool,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of x, scale and bias.

    Args:
        x, dy: `(R, C)`.
        scale: `(C,)`, float32.
        of_rows: shift, offset and variance, and what the gradients of the statistics add to that
            of x: times the centred x, and alone; `(R,)` each.
        eps, centred, interpret: as in `forward`.
    """
    (count, size), high = x.shape, _rows_at_once(x)
    programs = pl.cdiv(count, high * BLOCKS)
    sums = jax.ShapeDtypeStruct((programs, size), jnp.float32)
    out = [jax.ShapeDtypeStruct(x.shape, dy.dtype), sums, sums]
    kernel = partial(_cotangent, eps, centred, high)
    dx, dscale, dbias = call(kernel, out, (programs,), interpret)(x, dy, scale, *of_rows)
    return dx, dscale.sum(0), dbias.sum(0)


def _rows_at_once(x: Array) -> int:
    return max(1, IN_REGISTERS // whole(x.shape[1]))


def _forward(
    eps: float, centred: bool, high: int, x_ref: Any, scale_ref: Any, bias_ref: Any, *out: Any
) -> None:
    y_ref, shift_ref, offset_ref, variance_ref = out
    count, size = x_ref.shape
    block = Block((pl.program_id(0) * high, 0), (high, whole(size)), (count, size))
    x = block.read(x_ref)
    shift = offset = jnp.zeros((high, 1), jnp.float32)
    if centred:
        first = jnp.arange(x.shape[1])[None] == 0
        shift = jnp.where(first, x, 0).sum(1, keepdims=True)
        x = block.among_its_own(x - shift)
        offset = x.sum(1, keepdims=True) / size
        x = block.among_its_own(x - offset)
    variance = (x * x).sum(1, keepdims=True) / size
    variance = jnp.where(variance < jnp.inf, variance, jnp.nan)  # as `unless_overflowed`
    y = x * lax.rsqrt(variance + eps) * block.read_row(scale_ref) + block.read_row(bias_ref)
    block.write(y_ref, y)
    block.write_column(shift_ref, shift)
    block.write_column(offset_ref, offset)
    block.write_column(variance_ref, variance)


def _cotangent(
    eps: float, centred: bool, high: int, x_ref: Any, dy_ref: Any, scale_ref: Any, *refs: Any
) -> None:
    *of_rows, dx_ref, dscale_ref, dbias_ref = refs
    (count, size), program = x_ref.shape, pl.program_id(0)
    sides = high, whole(size)

    def one(number: Any, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        block = Block(((program * BLOCKS + number) * high, 0), sides, (count, size))
        shift, offset, variance, along, level = (block.read_column(ref) for ref in of_rows)
        dy, root = block.read(dy_ref), lax.rsqrt(variance + eps)
        c = block.among_its_own((block.read(x_ref) - shift) - offset)
        g = dy * block.read_row(scale_ref)
        along = along - root * (root * (root * ((g * c).sum(1, keepdims=True) / size)))
        if centred:
            level = level - root * (g.sum(1, keepdims=True) / size)
        block.write(dx_ref, g * root + (c * along + level))
        dscale, dbias = sums
        return dscale + (dy * c * root).sum(0), dbias + dy.sum(0)

    nothing = jnp.zeros(sides[1], jnp.float32)
    dscale, dbias = lax.fori_loop(0, BLOCKS, one, (nothing, nothing))
    whole_row = Block((program, 0), (1, sides[1]), (dscale_ref.shape[0], size))
    whole_row.write(dscale_ref, dscale[None])
    whole_row.write(dbias_ref, dbias[None])
