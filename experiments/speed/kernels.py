"""How fast are normlab's normalisers beside flax's and torch's, and are they as exact?

For each normaliser, shape and dtype: first the error of output and gradients against float64, at
small and at large means; then seconds, forward alone and forward with backward (gradients of
input, scale and bias), in turns with the peers and with a copy of the input, which is what memory
allows, all with the allocator of `normlab.prepare`; then bytes kept for the backward and peak
memory of temporaries. "Times the floor" compares with the copies that must be made at least, of
arrays that no cache holds. On a GPU too:

    python -m experiments.speed.kernels --peer flax    (the column "in copies of x" says how near
                                                        to the bandwidth of a copy it comes)
    python -m experiments.speed.kernels --peer flax,tokamax

There normlab's own kernels in Pallas are timed too, which serve only when they are asked for.

Commands:
    python -m experiments.speed.kernels                        (against flax, 4 minutes on 2 cores)
    python -m experiments.speed.kernels --peer flax,torch --rounds 15
    python -m experiments.speed.kernels --ops layer --shapes 128,8,8,256 --dtypes bfloat16
    python -m experiments.speed.kernels --dtypes float32 --save kernels_float32
"""

import argparse
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import normlab
from experiments.speed.harness import geometric_mean, in_turns, save, table, times_faster
from normlab.ops import pallas

EPS = 1e-5
IMAGES = ((128, 32, 32, 16), (128, 32, 32, 64), (128, 16, 16, 128), (128, 8, 8, 256))
SHAPES = (*IMAGES, (256, 64, 384))
GROUPS = {16: 8, 64: 16}
OPS = ("batch", "layer", "layer_image", "group", "instance", "rms")
HOSTILE = ((0.0, 1.0), (1e3, 1.0), (1e4, 1e-2))
IN_PALLAS = "normlab in Pallas"
BEYOND_CACHES = 16e6
"""Inputs of so many bytes are compared with the floor."""
Op = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def groups(channels: int) -> int:
    """Return the usual number of groups for that width."""
    return GROUPS.get(channels, 32 if channels % 32 == 0 else 1)


def ours(op: str) -> Op:
    """Return normlab's function of x, scale and bias."""

    def call(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        options = {"groups": groups(x.shape[-1])} if op == "group" else {}
        name = "layer_norm_image" if op == "layer_image" else f"{op}_norm"
        return getattr(normlab, name)(x, scale, bias, eps=EPS, **options)

    return call


def flax_peer(op: str) -> Op:
    """Make flax linen's layer with the same numbers and its defaults otherwise."""

    def call(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        common = {"epsilon": EPS, "dtype": x.dtype}
        params = {"scale": scale, "bias": bias}
        if op == "batch":
            stats = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
            layer = nn.BatchNorm(use_running_average=False, **common)
            variables = {"params": params, "batch_stats": stats}
            return layer.apply(variables, x, mutable=["batch_stats"])[0]
        if op == "rms":
            y: Any = nn.RMSNorm(**common).apply({"params": {"scale": scale}}, x)
            return y + bias.astype(x.dtype)
        layer = {
            "layer": lambda: nn.LayerNorm(**common),
            "layer_image": lambda: nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)), **common),
            "group": lambda: nn.GroupNorm(num_groups=groups(x.shape[-1]), **common),
            "instance": lambda: nn.InstanceNorm(**common),
        }[op]()
        return layer.apply({"params": params}, x)

    return call


@contextmanager
def traced_for(name: str) -> Iterator[None]:
    """Let what is traced in the block have Pallas kernels in it, if the name asks for them."""
    if name != IN_PALLAS:
        yield
        return
    before = os.environ.get(pallas.SETTING)
    os.environ[pallas.SETTING] = pallas.ASKED
    jax.clear_caches()  # what was traced before is without them
    try:
        yield
    finally:
        del os.environ[pallas.SETTING]
        os.environ |= {} if before is None else {pallas.SETTING: before}
        jax.clear_caches()


def tokamax_peer(op: str) -> Op:
    """Make tokamax's function of layer and RMS normalisation, if it is installed."""
    layer_norm = importlib.import_module("tokamax").layer_norm

    def call(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        return layer_norm(x, scale, bias, epsilon=EPS, subtract_mean=op == "layer")

    return call


def in_jax(op: str, peers: list[str]) -> dict[str, Op]:
    """Return the functions of JAX arrays that are compared, by their library."""
    functions = {"normlab": ours(op)}
    if jax.default_backend() == "gpu":
        functions[IN_PALLAS] = ours(op)
    if "flax" in peers:
        functions["flax"] = flax_peer(op)
    if "tokamax" in peers and op in ("layer", "rms"):
        functions["tokamax"] = tokamax_peer(op)
    return functions


def torch_peer(op: str, x: np.ndarray, dtype: str, backward: bool) -> dict[str, Callable[[], Any]]:
    """Make calls of torch's function, channels last and contiguous."""
    torch = importlib.import_module("torch")
    functional, channels = torch.nn.functional, x.shape[-1]
    scale = torch.full((channels,), 1.1, requires_grad=backward)
    bias = torch.full((channels,), 0.2, requires_grad=backward)
    if dtype == "bfloat16" and op in ("layer", "rms"):
        scale, bias = (v.detach().bfloat16().requires_grad_(backward) for v in (scale, bias))

    def normalise(leaf: Any) -> Any:
        if op in ("layer", "rms"):
            last = leaf.movedim(1, -1)
            if op == "layer":
                return functional.layer_norm(last, (channels,), scale, bias, EPS)
            return functional.rms_norm(last, (channels,), scale, EPS) + bias
        if op == "batch":
            return functional.batch_norm(leaf, None, None, scale, bias, training=True, eps=EPS)
        if op == "instance":
            return functional.instance_norm(leaf, weight=scale, bias=bias, eps=EPS)
        number = 1 if op == "layer_image" else groups(channels)
        return functional.group_norm(leaf, number, scale, bias, EPS)

    def make(leaf: Any) -> Callable[[], Any]:
        leaf = leaf.requires_grad_(backward)
        upstream = torch.randn_like(normalise(leaf))

        def call() -> Any:
            y = normalise(leaf)
            return torch.autograd.grad(y, (leaf, scale, bias), upstream) if backward else y

        return call

    last = torch.tensor(x).to(getattr(torch, dtype)).movedim(-1, 1)
    layouts = {"torch, channels last": last}
    if op not in ("layer", "rms"):  # those read a pixel's channels, so they are given them together
        layouts["torch, contiguous"] = last.contiguous()
    return {name: make(leaf.detach()) for name, leaf in layouts.items()}


def with_gradients(function: Op) -> Callable[..., Any]:
    """Compute output, and gradients of input, scale and bias."""

    def call(x: jax.Array, scale: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
        y, pull = jax.vjp(function, x, scale, bias)
        return y, pull(dy)

    return call


def truth(op: str, x: np.ndarray, scale: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Compute output (bias zero) and gradients of input, scale and bias in float64."""
    axes = {"batch": range(x.ndim - 1), "layer_image": range(1, x.ndim)}
    shape = x.shape
    x, dy, scale = (values.astype(np.float64) for values in (x, dy, scale))
    if op in ("group", "instance"):
        number = groups(shape[-1]) if op == "group" else shape[-1]
        x = x.reshape(*shape[:-1], number, -1)
        shared = (*range(1, x.ndim - 2), x.ndim - 1)
    else:
        shared = tuple(axes.get(op, (-1,)))
    mean = 0.0 if op == "rms" else x.mean(shared, keepdims=True)
    root = np.sqrt(((x - mean) ** 2).mean(shared, keepdims=True) + EPS)
    z = (x - mean) / root
    g = (dy * scale).reshape(z.shape)
    dx = g - z * (g * z).mean(shared, keepdims=True)
    if op != "rms":
        dx -= g.mean(shared, keepdims=True)
    z, leading = z.reshape(shape), tuple(range(len(shape) - 1))
    return [z * scale, (dx / root).reshape(shape), (dy * z).sum(leading), dy.sum(leading)]


def errors(op: str, functions: dict[str, Op], shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure the largest error of output and gradients for each library and difficult input."""
    rng = np.random.default_rng(0)
    small = (min(shape[0], 16), *shape[1:])
    noise, dy = rng.standard_normal((2, *small)).astype(np.float32)
    scale = rng.uniform(0.5, 2, small[-1]).astype(np.float32)
    rows = []
    for name, function in functions.items():
        call = jax.jit(with_gradients(function))
        row: dict[str, Any] = {"op": op, "library": name}
        for mean, std in HOSTILE:
            x = (mean + std * noise).astype(np.float32)
            with traced_for(name):
                y, gradients = call(x, scale, jnp.zeros_like(scale), dy)
            pairs = zip((y, *gradients), truth(op, x, scale, dy), strict=True)
            found = [float(np.abs(one - true).max() / np.abs(true).max()) for one, true in pairs]
            row[f"output at {mean:g}, {std:g}"] = found[0]
            row[f"gradients at {mean:g}, {std:g}"] = max(found[1:])
        rows.append(row)
    return rows


def kept_bytes(function: Op, x: jax.Array, affine: jax.Array) -> int:
    """Count the bytes that reverse mode keeps, including arguments, each array once."""
    _, pull = jax.vjp(function, x, affine, affine)
    return sum({id(leaf): leaf.nbytes for leaf in jax.tree.leaves(pull)}.values())


@jax.jit
def copy(x: jax.Array) -> jax.Array:
    """Read and write every element once, which measures the memory bandwidth."""
    return x + 1


def floor(op: str, backward: bool) -> float:
    """Count the copies of an input that no cache holds which must be made at least.

    Forward reads x and writes y; backward reads x and dy and writes dx. Statistics over the whole
    batch are known only when all of x, and dy, has been read, which then must be read again.
    """
    again = op == "batch"
    forward = 2 + again
    return (forward + 3 + 2 * again if backward else forward) / 2


def cell(
    op: str, shape: tuple[int, ...], dtype: str, peers: list[str], rounds: int
) -> dict[str, Any]:
    """Measure times and bytes of one normaliser at one shape and dtype."""
    rng = np.random.default_rng(0)
    wide = (1 + 2 * rng.standard_normal(shape)).astype(np.float32)
    x, dy = jnp.asarray(wide, dtype), jnp.asarray(rng.standard_normal(shape), dtype)
    scale, bias = jnp.full(shape[-1:], 1.1), jnp.full(shape[-1:], 0.2)
    functions = in_jax(op, peers)
    row: dict[str, Any] = {"op": op, "shape": "x".join(map(str, shape)), "dtype": dtype}
    for kind, backward in (("forward", False), ("forward+backward", True)):
        calls: dict[str, Callable[[], Any]] = {}
        for name, function in functions.items():
            arguments = (x, scale, bias, dy) if backward else (x, scale, bias)
            jitted = jax.jit(with_gradients(function) if backward else function)
            with traced_for(name):
                compiled = jitted.lower(*arguments).compile()
            calls[name] = functools.partial(compiled, *arguments)
            if backward:
                row[f"{name} kept MB"] = kept_bytes(function, x, scale) / 1e6
                row[f"{name} peak MB"] = (
                    getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0) / 1e6
                )
        if "torch" in peers:
            calls |= torch_peer(op, wide, dtype, backward)
        times = in_turns({**calls, "copy": functools.partial(copy, x)}, rounds=rounds)
        copies = float(np.median(times["normlab"] / times.pop("copy")))
        row[f"{kind} in copies of x"] = copies
        large = x.nbytes >= BEYOND_CACHES
        row[f"{kind} times the floor"] = copies / floor(op, backward) if large else None
        row |= {f"{name} {kind} ms": 1e3 * float(np.median(t)) for name, t in times.items()}
        for peer in ("flax", "tokamax", IN_PALLAS):
            if peer in times:
                row[f"{kind} times {peer}"] = times_faster(times, "normlab", peer)
        if "torch" in peers:
            layouts = [name for name in times if name.startswith("torch")]
            best = min(layouts, key=lambda name: float(np.median(times[name])))
            row[f"{kind} times torch"] = times_faster(times, "normlab", best)
    return row


def picture(rows: list[dict[str, Any]]) -> Figure:
    """Draw every cell's ratio to flax, one line per normaliser."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(row["op"] for row in rows))
    for panel, kind in zip(axes, ("forward", "forward+backward"), strict=True):
        panel.axvline(1, color="0.6", linewidth=1)
        for dtype, marker in (("float32", "o"), ("bfloat16", "x")):
            chosen = [row for row in rows if row["dtype"] == dtype]
            panel.plot(
                [row[f"{kind} times flax"] for row in chosen],
                [names.index(row["op"]) for row in chosen],
                marker,
                label=dtype,
                alpha=0.7,
            )
        panel.set(title=kind, xlabel="times as fast as flax", xscale="log")
        panel.set_xticks([0.5, 1, 2, 4], labels=["0.5", "1", "2", "4"], minor=False)
        panel.minorticks_off()
    axes[0].set_yticks(range(len(names)), labels=names)
    axes[1].legend(frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Print errors, times and their means; write results unless told not to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peer", default="flax", help="of flax, torch and tokamax, with commas")
    parser.add_argument("--ops", default=",".join(OPS))
    parser.add_argument("--shapes", default=" ".join(",".join(map(str, s)) for s in SHAPES))
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", default="kernels", help="the results' name; empty: not written")
    options = parser.parse_args(arguments)
    peers, ops = options.peer.split(","), options.ops.split(",")
    shapes = [tuple(map(int, shape.split(","))) for shape in options.shapes.split()]

    exactness = [row for op in ops for row in errors(op, in_jax(op, [*peers, "flax"]), shapes[0])]
    print(f"largest error over largest value, shape {shapes[0]}, float32\n\n{table(exactness)}\n")
    rows = []
    for op in ops:
        for dtype in options.dtypes.split(","):
            for shape in shapes:
                rows.append(cell(op, shape, dtype, peers, options.rounds))
                shown = {key: value for key, value in rows[-1].items() if "MB" not in key}
                lines = table([shown]).splitlines()
                print("\n".join(lines[2 if len(rows) > 1 else 0 :]), flush=True)
    means = [
        {
            "peer": peer,
            "dtype": dtype,
            "kind": kind,
            "geometric mean": geometric_mean(ratios),
            "least": min(ratios),
        }
        for peer in peers
        for dtype in options.dtypes.split(",")
        for kind in ("forward", "forward+backward")
        if (column := f"{kind} times {peer}")
        and (ratios := [row[column] for row in rows if row["dtype"] == dtype and column in row])
    ]
    print(f"\ntimes as fast as the peer\n\n{table(means)}")
    if options.save:
        figure = picture(rows) if "flax" in peers else None
        save(options.save, {"errors": exactness, "cells": rows, "means": means}, figure)


if __name__ == "__main__":
    # For the peers too: without it a cell is three times as slow in one process as in another.
    normlab.prepare()
    main()
