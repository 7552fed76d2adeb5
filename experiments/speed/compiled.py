"""What would a compiled kernel give, where pure JAX ends? One prototype: layer norm on the CPU.

Compiles `compiled.cc` beside this file with the system's C++ compiler, calls it through `jax.ffi`,
compares it with float64, and times it in turns with normlab's and flax's layer norm, forward and
backward. It is a measurement, not a part of normlab: nothing uses it.

Command: python -m experiments.speed.compiled    (needs g++; under a minute)
"""

import argparse
import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed.harness import in_turns, save, table, times_faster
from experiments.speed.kernels import EPS, SHAPES, flax_peer, ours, truth, with_gradients

SOURCE = Path(__file__).with_suffix(".cc")
# Sums in any order, and no thought of NaN: what -ffast-math is, but by its parts. By that name GCC
# links a start-up file into the library, and loading it makes the whole thread flush numbers below
# 1e-308 to zero, numpy's too.
ARITHMETIC = (
    "-fassociative-math",
    "-ffinite-math-only",
    "-fno-math-errno",
    "-fno-signed-zeros",
    "-fno-trapping-math",
    "-freciprocal-math",
)
FLAGS = ("-O3", "-march=native", *ARITHMETIC, "-std=c++17", "-shared", "-fPIC", "-pthread", "-w")


def build(folder: Path) -> None:
    """Compile the prototype and tell JAX of its two functions."""
    library = folder / "compiled.so"
    include = f"-I{jax.ffi.include_dir()}"
    subprocess.run(["g++", *FLAGS, include, str(SOURCE), "-o", str(library)], check=True)
    loaded = ctypes.cdll.LoadLibrary(str(library))
    for name in ("forward", "backward"):
        jax.ffi.register_ffi_target(
            f"layer_norm_{name}", jax.ffi.pycapsule(getattr(loaded, name)), platform="cpu"
        )


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array) -> Any:
    whole, rows = (jax.ShapeDtypeStruct(shape, x.dtype) for shape in (x.shape, x.shape[:-1]))
    call = jax.ffi.ffi_call("layer_norm_forward", (whole, rows, rows))
    y, mean, root = call(x, scale, bias, eps=np.float32(EPS))
    return y, (x, scale, mean, root)


def _backward(kept: Any, dy: jax.Array) -> Any:
    x, scale, _, _ = kept
    shapes = [jax.ShapeDtypeStruct(shape, x.dtype) for shape in (x.shape, scale.shape, scale.shape)]
    return tuple(jax.ffi.ffi_call("layer_norm_backward", shapes)(*kept, dy))


@jax.custom_vjp
def prototype(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Layer norm over the last axis, float32; only reverse mode."""
    return _forward(x, scale, bias)[0]


prototype.defvjp(_forward, _backward)


def main(arguments: list[str] | None = None) -> None:
    """Print errors and times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default=" ".join(",".join(map(str, s)) for s in SHAPES))
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    if shutil.which("g++") is None:
        parser.error("there is no g++ to compile the prototype with: install one")
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
    functions = {"prototype": prototype, "normlab": ours("layer"), "flax": flax_peer("layer")}
    rows = []
    for shape in (tuple(map(int, text.split(","))) for text in options.shapes.split()):
        rng = np.random.default_rng(0)
        x, dy = (1 + 2 * rng.standard_normal((2, *shape))).astype(np.float32)
        scale, bias = np.full(shape[-1:], 1.1, np.float32), np.zeros(shape[-1:], np.float32)
        row: dict[str, Any] = {"shape": "x".join(map(str, shape))}
        true = truth("layer", x, scale, dy)
        for kind, backward in (("forward", False), ("forward+backward", True)):
            calls = {}
            for name, function in functions.items():
                given = (x, scale, bias, dy) if backward else (x, scale, bias)
                jitted = jax.jit(with_gradients(function) if backward else function)
                calls[name] = functools.partial(jitted, *map(jnp.asarray, given))
            if backward:
                y, gradients = calls["prototype"]()
                pairs = zip((y, *gradients), true, strict=True)
                row["error"] = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
            times = in_turns(calls, rounds=options.rounds)
            row |= {f"{kind} ms": 1e3 * float(np.median(times["prototype"]))}
            for peer in ("normlab", "flax"):
                row[f"{kind} times {peer}"] = times_faster(times, "prototype", peer)
        rows.append(row)
    print(table(rows))
    if not options.dry:
        save("compiled", {"rows": rows})


if __name__ == "__main__":
    main()
