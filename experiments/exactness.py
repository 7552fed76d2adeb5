"""How exact is each library's normaliser when the mean of the data is large?

The program prints, as Markdown, the largest error of the output against float64 over the largest
output, for float32 input of several means and deviations, and the same for the gradient of the
input. Peers that are not installed are left out.

Command: python -m experiments.exactness
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "jax")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import normlab

SHAPE, EPS, SEED = (64, 16, 16, 32), 1e-5, 0
DATA = ((0.0, 1.0), (1e3, 1.0), (1e4, 1.0), (1e4, 1e-2), (1e6, 1.0))
AXES = {"batch": (0, 1, 2), "layer": (3,)}
Function = Callable[[jax.Array], jax.Array]


def flax_peer(kind: str, fast: bool) -> Function:
    """Flax's layer, with its default one-pass variance or without."""
    if kind == "batch":
        layer = nn.BatchNorm(use_running_average=False, epsilon=EPS, use_fast_variance=fast)
    else:
        layer = nn.LayerNorm(epsilon=EPS, use_fast_variance=fast)
    variables = layer.init(jax.random.key(0), jnp.zeros(SHAPE))
    return lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0]


def haiku_peer(kind: str) -> Function:
    """Haiku's layer."""
    hk = importlib.import_module("haiku")

    def layer(x: jax.Array) -> jax.Array:
        if kind == "batch":
            return hk.BatchNorm(True, True, 0.9, eps=EPS)(x, is_training=True)
        return hk.LayerNorm(-1, True, True, eps=EPS)(x)

    pure = hk.transform_with_state(layer)
    params, state = pure.init(None, jnp.zeros(SHAPE))
    return lambda x: pure.apply(params, state, None, x)[0]


def equinox_peer(kind: str) -> Function:
    """Equinox's layer."""
    eqx = importlib.import_module("equinox")
    if kind == "layer":
        return jax.vmap(jax.vmap(jax.vmap(eqx.nn.LayerNorm(SHAPE[-1], eps=EPS))))
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        SHAPE[-1], axis_name="batch", eps=EPS, mode="batch"
    )
    mapped = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
    return lambda x: mapped(x.transpose(0, 3, 1, 2), state)[0].transpose(0, 2, 3, 1)


def keras_peer(kind: str) -> Function:
    """Keras' layer, on its JAX backend."""
    keras = importlib.import_module("keras")
    layer = getattr(keras.layers, f"{kind.capitalize()}Normalization")(epsilon=EPS)
    layer.build(SHAPE)
    trainable = [v.value for v in layer.trainable_variables]
    fixed = [v.value for v in layer.non_trainable_variables]
    options = {"training": True} if kind == "batch" else {}
    return lambda x: layer.stateless_call(trainable, fixed, x, **options)[0]


PEERS: dict[str, tuple[str, Callable[[str], Function]]] = {
    "normlab": ("normlab", lambda kind: getattr(normlab, f"{kind}_norm")),
    "flax, default": ("flax", lambda kind: flax_peer(kind, fast=True)),
    "flax, use_fast_variance=False": ("flax", lambda kind: flax_peer(kind, fast=False)),
    "haiku": ("dm-haiku", haiku_peer),
    "equinox": ("equinox", equinox_peer),
    "keras": ("keras", keras_peer),
}


def torch_result(kind: str, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Torch's output and gradient of the input."""
    torch = importlib.import_module("torch")
    leaf = torch.tensor(x, requires_grad=True)
    functional = torch.nn.functional
    if kind == "batch":
        y = functional.batch_norm(leaf.permute(0, 3, 1, 2), None, None, training=True, eps=EPS)
        y = y.permute(0, 2, 3, 1)
    else:
        y = functional.layer_norm(leaf, SHAPE[-1:], eps=EPS)
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), leaf.grad.numpy()


def truth(kind: str, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and gradient of the input in float64."""
    x, dy, axes = x.astype(np.float64), dy.astype(np.float64), AXES[kind]
    centred = x - x.mean(axes, keepdims=True)
    root = np.sqrt((centred**2).mean(axes, keepdims=True) + EPS)
    y = centred / root
    spread = dy - dy.mean(axes, keepdims=True) - y * (dy * y).mean(axes, keepdims=True)
    return y, spread / root


def error(found: np.ndarray, true: np.ndarray) -> float:
    """The largest error over the largest true value."""
    return float(np.abs(np.asarray(found, np.float64) - true).max() / np.abs(true).max())


def installed(package: str) -> bool:
    """Return whether a package can be measured."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> None:
    """Print a table for each normaliser."""
    rng = np.random.default_rng(SEED)
    noise, dy = rng.standard_normal((2, *SHAPE)).astype(np.float32)
    inputs = [(mean + std * noise).astype(np.float32) for mean, std in DATA]
    packages = ("jax", *(package for package, _ in PEERS.values()), "torch")
    versions = {name: importlib.metadata.version(name) for name in packages if installed(name)}
    print(f"shape {SHAPE}, float32, eps {EPS}, {jax.devices()[0].platform}; {versions}\n")
    for kind in AXES:
        columns = " | ".join(f"{mean:g}, {std:g}" for mean, std in DATA)
        print(f"| {kind}, output / gradient, at mean, std | {columns} |")
        print("|---" * (len(DATA) + 1) + "|")
        for name, (package, make) in PEERS.items():
            if not installed(package):
                continue
            function = make(kind)
            results = []
            for x in inputs:
                y, vjp = jax.vjp(jax.jit(function), jnp.asarray(x))
                results.append((np.asarray(y), np.asarray(vjp(jnp.asarray(dy))[0])))
            print_row(name, kind, inputs, dy, results)
        if installed("torch"):
            results = [torch_result(kind, x, dy) for x in inputs]
            print_row("torch", kind, inputs, dy, results)
        print()


def print_row(name: str, kind: str, inputs: list, dy: np.ndarray, results: list) -> None:
    """One library's line."""
    cells = []
    for x, found in zip(inputs, results, strict=True):
        pairs = zip(found, truth(kind, x, dy), strict=True)
        cells.append(" / ".join(f"{error(one, true):.1e}" for one, true in pairs))
    print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
