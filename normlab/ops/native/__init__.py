"""Kernels compiled by numba for the processor they run on (`normlab[native]`), for CPUs.

They normalise, and compute the gradient of a convolution's kernel.

XLA for CPUs writes and reads an array of the size of `x` several times for one normalisation. The
kernels here read and write it as often as they must, and their sums have a fixed order. They serve
in a process that has called `use()`, as `normlab.prepare()` and `normlab run` do. Everywhere else,
and without numba, JAX computes the same numbers up to rounding.

Derivatives stay those of `ops/kernels.py`: first gradients run compiled, and forward mode, second
derivatives and `vmap` run as plain JAX.
"""

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from filelock import FileLock

from normlab.core import Array
from normlab.ops.either import either
from normlab.ops.layouts import Layout, Rows, Statistics
from normlab.places import cache_root

TARGET = "normlab_"
"""XLA knows a kernel by a name that begins so; those of its form and its dtype follow."""

DTYPES = ("float32", "bfloat16", "float16")
LEAST = 1 << 14
"""Arrays of fewer values are left to XLA, which can join them with the operations around."""

LEAST_PRODUCTS = 1 << 18
"""A kernel gradient with fewer products for each place of the kernel is left to XLA."""

KERNEL_GRADIENT = "kernel_gradient"
"""The kernel of `kernel_gradient`, as `handlers` names it."""

NAME = "kernels"
"""Under which provenance says what `chosen` says."""

_allowed = False


def use(allowed: bool = True) -> bool:
    """Have programs that are traced from now on normalise by compiled kernels, or by JAX again.

    Args:
        allowed: False for JAX.

    Returns:
        What was set before.

    Each kernel is compiled when it is first needed, which takes some seconds once per machine.
    """
    global _allowed
    before, _allowed = _allowed, allowed
    if before != allowed:
        jax.clear_caches()  # what was traced has the one or the other in it
    return before


@contextmanager
def only_if(wanted: bool) -> Iterator[None]:
    """Leave the kernels, where they are in use, only if they are wanted.

    >>> with only_if(False):
    ...     chosen()
    ''
    """
    before = use(_allowed and wanted)
    try:
        yield
    finally:
        use(before)


def chosen() -> str:
    """Name what normalises large arrays here: numba and its version, or nothing for JAX.

    >>> before = use(False)
    >>> chosen()
    ''
    >>> _ = use(before)
    """
    usable = _allowed and _on_one_cpu() and importlib.util.find_spec("numba") is not None
    return f"numba {importlib.metadata.version('numba')}" if usable else ""


def serves(layout: Layout, x: Array, backward: bool = False) -> bool:
    """Return whether a compiled kernel takes this input.

    It takes arrays of `DTYPES` on the one device of a CPU. An array that is spread over several
    devices stays XLA's, which knows how to sum over them.

    Args:
        layout: which values share statistics.
        x: the input.
        backward: whether the gradient is asked for, which has a kernel of its own.
    """
    return (
        x.dtype.name in DTYPES
        and all(isinstance(size, int) for size in x.shape)
        and x.size >= LEAST
        and _sizes(layout, x.shape) is not None
        and bool(chosen())
        and _registered(_form(layout, backward), x.dtype.name)
    )


def _form(layout: Layout, backward: bool) -> str:
    """Name the kernel, as `handlers` does."""
    shared_by = "rows" if isinstance(layout, Rows) else "images"
    return f"{shared_by}_backward" if backward else f"{shared_by}_forward"


def _call(form: str, x: Array, results: Any) -> Any:
    return jax.ffi.ffi_call(f"{TARGET}{form}_{x.dtype.name}", results)


def _on_one_cpu() -> bool:
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def forward(
    layout: Layout, eps: float, x: Array, scale: Array | None, bias: Array | None, plain: Any
) -> tuple[Array, Statistics]:
    """Normalise as `ops.kernels.normalised` does.

    Args:
        layout: which values share statistics.
        eps: added to the variance.
        x: `(..., C)`, of one of `DTYPES`.
        scale, bias: `(C,)` or None, float32.
        plain: the same function in JAX, see `either`.
    """
    return either(partial(_forward, layout, eps), plain, x, scale, bias)


def cotangent(
    layout: Layout, eps: float, has_bias: bool, kept: Any, cotangents: Any, plain: Any
) -> tuple[Array, Array | None, Array | None]:
    """Compute the gradient of `forward`.

    Args:
        layout, eps: as in `forward`.
        has_bias: whether the gradient of a bias is asked for.
        kept: x, scale and the statistics.
        cotangents: those of y and of the statistics.
        plain: the same function in JAX, see `either`.
    """
    return either(partial(_cotangent, layout, eps, has_bias), plain, kept, cotangents)


def _sizes(layout: Layout, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int] | None:
    """The sizes as which a kernel sees the input, and the number of groups; None if none does."""
    if isinstance(layout, Rows):
        return (math.prod(shape[:-1]), shape[-1]), 1
    first = layout.axes[0]
    if layout.axes != tuple(range(first, len(shape) - 1)):
        return None
    return (math.prod(shape[:first]), math.prod(shape[first:-1]), shape[-1]), layout.groups


def _settings(layout: Layout, eps: float) -> Array:
    return jnp.array([eps, layout.centred], jnp.float32)


def _forward(layout: Layout, eps: float, x: Array, scale: Array | None, bias: Array | None) -> Any:
    sizes, groups = _sizes(layout, x.shape)  # pyright: ignore[reportGeneralTypeIssues]
    channels = x.shape[-1]
    ones = jnp.ones(channels, jnp.float32)
    scale, bias = (ones if scale is None else scale), (0 * ones if bias is None else bias)
    shared = jax.ShapeDtypeStruct(_shared(layout, sizes, groups), jnp.float32)
    whole = jax.ShapeDtypeStruct(sizes, x.dtype)
    how_many = jnp.zeros(groups, jnp.float32)
    y, *found = _call(_form(layout, False), x, (whole, shared, shared, shared))(
        x.reshape(sizes), scale.reshape(-1), bias.reshape(-1), _settings(layout, eps), how_many
    )
    return y.reshape(x.shape), Statistics(*(_beside(layout, x, values) for values in found))


def _cotangent(layout: Layout, eps: float, has_bias: bool, kept: Any, cotangents: Any) -> Any:
    x, scale, statistics = kept
    dy, (_, doffset, dvariance) = cotangents
    sizes, groups = _sizes(layout, x.shape)  # pyright: ignore[reportGeneralTypeIssues]
    channels = x.shape[-1]
    whole = jax.ShapeDtypeStruct(sizes, x.dtype)
    each = jax.ShapeDtypeStruct((channels,), jnp.float32)
    shape = _shared(layout, sizes, groups)

    def one_each(values: Array) -> Array:
        """One number for each statistic, of the channels of a group the first one's."""
        return values.reshape(-1, groups, values.shape[-1] // groups)[..., 0].reshape(shape)

    along = one_each(2 * layout.spread(dvariance, x.shape))
    level = one_each(layout.spread(doffset, x.shape)) if layout.centred else jnp.zeros_like(along)
    given = jnp.ones(channels, jnp.float32) if scale is None else scale.reshape(-1)
    dx, dscale, dbias = _call(_form(layout, True), x, (whole, each, each))(
        x.reshape(sizes), dy.reshape(sizes), given, _settings(layout, eps),
        *(one_each(values) for values in statistics), along, level,
    )  # fmt: skip
    return (
        dx.reshape(x.shape),
        None if scale is None else dscale.reshape(scale.shape),
        dbias if has_bias else None,
    )


def _shared(layout: Layout, sizes: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """The shape in which a kernel keeps statistics."""
    return sizes[:1] if isinstance(layout, Rows) else (sizes[0], groups)


def _beside(layout: Layout, x: Array, values: Array) -> Array:
    """Statistics of a kernel as `ops.kernels` has them."""
    if isinstance(layout, Rows):
        return values.reshape(*x.shape[:-1], 1)
    first = layout.axes[0]
    repeated = jnp.repeat(values, x.shape[-1] // layout.groups, axis=-1)
    return repeated.reshape(*x.shape[:first], *(1,) * len(layout.axes), x.shape[-1])


def serves_kernel_gradient(x: Array, dy: Array) -> bool:
    """Return whether `kernel_gradient` takes these operands; XLA's is as good for few products."""
    return (
        x.dtype == dy.dtype
        and x.dtype.name in DTYPES
        and all(isinstance(size, int) for size in (*x.shape, *dy.shape))
        and dy.size * x.shape[3] >= LEAST_PRODUCTS
        and bool(chosen())
        and _registered(KERNEL_GRADIENT, x.dtype.name)
    )


def kernel_gradient(
    x: Array,
    dy: Array,
    strides: tuple[int, int],
    before: tuple[int, int],
    size: tuple[int, int],
    plain: Any,
) -> Array:
    """Compute the gradient of a convolution with respect to its kernel.

    Args:
        x: images `(N, H, W, C)`, of one of `DTYPES`.
        dy: the gradient of the output `(N, H', W', D)`.
        strides: of rows and columns.
        before: the padding before the first row and the first column; may be negative.
        size: rows and columns of the kernel.
        plain: the same function of x and dy in JAX, see `either`.

    Returns:
        `(*size, C, D)` in the dtype of `x`.
    """
    return either(partial(_kernel_gradient, strides, before, size), plain, x, dy)


def _kernel_gradient(
    strides: tuple[int, int], before: tuple[int, int], size: tuple[int, int], x: Array, dy: Array
) -> Array:
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3], dy.shape[3]), x.dtype)
    geometry = jnp.array([*strides, *before], jnp.float32)
    return _call(KERNEL_GRADIENT, x, kernel)(x, dy, geometry)


@cache
def _registered(form: str, dtype: str) -> bool:
    """Compile a kernel for a dtype, or read it from the cache folder, and give it to XLA."""
    from llvmlite import binding
    from numba import config

    on_x86 = platform.machine() in ("x86_64", "AMD64")
    if dtype == "float16" and on_x86 and not binding.get_host_cpu_features().get("f16c"):
        return False  # an old processor, which converts value by value
    # Only now, because importing it takes a second.
    from normlab.ops.native.handlers import compile_kernel

    folder = _cache_folder()
    if folder is None:
        kernel = compile_kernel(form, dtype, keep=False)
    else:
        # One process compiles, and those that wait for it find what it compiled.
        with FileLock(folder / f"{form}.lock"):
            before, config.CACHE_DIR = config.CACHE_DIR, str(folder)  # pyright: ignore[reportAttributeAccessIssue]
            try:
                kernel = compile_kernel(form, dtype, keep=True)
            finally:
                config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p] * 3
    jax.ffi.register_ffi_target(
        f"{TARGET}{form}_{dtype}", capsule(kernel.address, None, None), platform="cpu"
    )
    return True


def _cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where that is not safe or not possible.

    Its name depends on the source and the versions. numba itself tells processors apart. Nothing
    is read from a folder that others can write to, because it would be run.
    """
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    versions = [importlib.metadata.version(name) for name in ("numba", "llvmlite", "jaxlib")]
    key = hashlib.sha256(b"\0".join([*sources, *map(str.encode, versions)])).hexdigest()[:16]
    folder = cache_root() / "native" / key
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        private = not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        return folder if mine and private and os.access(folder, os.W_OK) else None
    except OSError:
        return None


__all__ = [
    "NAME", "chosen", "cotangent", "forward", "kernel_gradient", "only_if", "serves",
    "serves_kernel_gradient", "use",
]  # fmt: skip
