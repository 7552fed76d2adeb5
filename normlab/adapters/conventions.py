"""Names conventions that no array holds and two networks do not share, with their effect.

Equal weights give other outputs if a strided convolution pads otherwise, if `eps` differs, or if
pictures are resized by another rule. A state dict holds none of these, so torch's defaults are
assumed for it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from normlab.adapters.calls import Meetings
from normlab.adapters.flax_layers import LAYERS
from normlab.adapters.linen_norm import Norm as LinenNorm
from normlab.adapters.nnx import Norm as NnxNorm
from normlab.core import Array
from normlab.models.slots import Norm as Slot

Settings = Mapping[str, Any]
"""The conventions of a layer, by name."""

EPS, MOMENTUM, VARIANCE, PADDING = "eps", "momentum", "running variance", "padding"

EPS_OF_SQUARE = "eps of RMS norm"
"""The convention that has another default in torch."""

IN_TRAINING = (MOMENTUM, VARIANCE)
"""Conventions without an effect on the output of an evaluation."""

RESIZE = "interpolation"

TORCHS = {EPS: 1e-5, EPS_OF_SQUARE: 2.0**-23, MOMENTUM: 0.9, VARIANCE: "unbiased"}
"""Torch's defaults. Torch writes the momentum as 0.1, the weight of the new value."""

NORMALISING = (*LAYERS, LinenNorm, NnxNorm, Slot)
"""Layers that have a normaliser's settings."""


class Conventional(Protocol):
    """Tells the conventions of a side of `carry`.

    Attributes:
        resizes: the resizes in a call of the model, such as "(8, 8) to (16, 16)".
    """

    resizes: Sequence[str]

    def settings(self) -> Mapping[str, Settings] | None:
        """Return the settings of each layer, by name; None if the side does not hold them."""
        ...

    def outputs(self, result: Any, changes: Mapping[str, Settings]) -> Any:
        """Compute the outputs on the example, with other settings for some layers.

        Args:
            result: the result of `carry` for the side, or None for the side as it was.
            changes: name of a layer -> the settings to change.

        Returns:
            Any tree of arrays; None if there is no model, or no values of an example.
        """
        ...


def of_layer(layer: Any) -> dict[str, Any]:
    """Return the settings of a layer of Flax, or of this library.

    >>> import flax.linen as nn
    >>> of_layer(nn.BatchNorm(momentum=0.9))
    {'eps': 1e-05, 'momentum': 0.9, 'running variance': 'biased'}
    """
    if isinstance(layer, nn.Conv | nnx.Conv):
        return {PADDING: _pads(layer)} if _is_strided(layer.strides) else {}
    if not isinstance(layer, NORMALISING):
        return {}
    norm = getattr(layer, "normaliser", layer)
    found: dict[str, Any] = {}
    eps = getattr(norm, "eps", getattr(norm, "epsilon", None))
    if eps is not None:
        found[_name_of_eps(norm)] = float(eps)
    if isinstance(getattr(norm, "momentum", None), float):
        unbiased = getattr(norm, "unbiased_running_variance", False)
        found |= {MOMENTUM: norm.momentum, VARIANCE: "unbiased" if unbiased else "biased"}
    return found


def of_torchs_layer(layer: Any) -> dict[str, Any]:
    """Return the settings of a module of torch."""
    if hasattr(layer, "kernel_size") and hasattr(layer, "stride") and hasattr(layer, "padding"):
        return {PADDING: _torchs_pads(layer)} if _is_strided(layer.stride) else {}
    found: dict[str, Any] = {}
    name = _name_of_eps(layer)
    if hasattr(layer, "eps"):
        found[name] = TORCHS[name] if layer.eps is None else layer.eps
    if isinstance(getattr(layer, "momentum", None), float) and hasattr(layer, "running_var"):
        found |= {MOMENTUM: round(1 - layer.momentum, 12), VARIANCE: "unbiased"}
    return found


def changed_fields(layer: Any, change: Settings) -> dict[str, Any]:
    """Return the fields that give a layer of Flax other settings."""
    if PADDING in change:
        return {"padding": change[PADDING]}
    for name in (EPS, EPS_OF_SQUARE):
        if name in change and hasattr(layer, "normaliser"):
            return {"normaliser": replace(layer.normaliser, eps=change[name])}
        if name in change:
            return {"epsilon": change[name]}
    return {}


def remarks(
    source: Conventional, target: Conventional, result: Any, pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Write one line for each convention that two sides do not share.

    Args:
        source, target: the sides.
        result: the result of `carry` for the target.
        pairs: names of layers in the source and in the target.
    """
    held = [source.settings(), target.settings()]
    if held == [None, None]:
        return []
    assumed = held.index(None) if None in held else None
    if assumed is not None:
        known = held[1 - assumed] or {}
        to = {pair[1 - assumed]: pair[assumed] for pair in pairs}
        held[assumed] = {to[n]: torchs_default(s) for n, s in known.items() if n in to}
    runs = 0 if assumed == 1 else 1
    example = _Example((source, target)[runs], result if runs else None)
    lines = [
        f"{name}: {values[0]} in the source{' (as is usual in torch)' if assumed == 0 else ''}, "
        f"{values[1]} in the target{' (as is usual in torch)' if assumed == 1 else ''}, of "
        f"{_listed(list(changes))}{effect}"
        for name, values, changes in _differences(held, pairs, runs)
        if (effect := example.effect_of(name, changes)) is not None
    ]
    if example.side.resizes and assumed is not None:
        lines.append(
            f"{RESIZE}: the model resizes {', '.join(example.side.resizes)} by jax.image.resize, "
            "whose rule is not that of torch.nn.functional.interpolate" + example.effect_of_resize()
        )
    return lines


def _differences(
    held: Sequence[Any], pairs: Sequence[tuple[str, str]], runs: int
) -> list[tuple[str, tuple[Any, Any], dict[str, Settings]]]:
    """Find each convention that differs, its values, and the change that removes the difference."""
    found: dict[tuple[str, str], dict[str, Settings]] = defaultdict(dict)
    values: dict[tuple[str, str], tuple[Any, Any]] = {}
    for pair in pairs:
        one, other = (settings.get(name, {}) for settings, name in zip(held, pair, strict=True))
        for name in sorted(one.keys() & other.keys()):
            both = one[name], other[name]
            if both[0] != both[1]:
                key = name, repr(both)
                values[key] = both
                found[key][pair[runs]] = {name: both[1 - runs]}
    return [(key[0], values[key], found[key]) for key in sorted(found)]


class _Example:
    """The example input of a side; it shows the effect of other settings."""

    def __init__(self, side: Conventional, result: Any):
        self.side, self.result = side, result

    def effect_of(self, name: str, changes: Mapping[str, Settings]) -> str | None:
        """Return the end of a line; None if the difference has no effect on this input."""
        if name in IN_TRAINING:
            return "; it does not change an evaluation, and changes further training"
        moved = self._moved(lambda: self.side.outputs(self.result, changes))
        return None if name == PADDING and moved == 0 else _told(moved)

    def effect_of_resize(self) -> str:
        """Return the end of the line on resizing."""

        def resized() -> Any:
            with mock.patch.object(jax.image, "resize", torchs_resize):
                return self.side.outputs(self.result, {})

        return _told(self._moved(resized))

    def _moved(self, other: Callable[[], Any]) -> float | None:
        """Measure how far the outputs move, relative to the largest; None if nothing can run."""
        before = self.side.outputs(self.result, {})
        if before is None:
            return None
        try:
            after = other()
            moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before, after)
        except (TypeError, ValueError):  # the shapes do not fit
            return None
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(before))
        return max(jax.tree.leaves(moved)) / largest if largest else 0.0


def _told(moved: float | None) -> str:
    if moved is None:
        return "; its effect is not known without the values of an example that fits"
    return f"; with the other's rule the outputs on the example move by {moved:.2g} of the largest"


def resizes(met: Meetings) -> list[str]:
    """List the resizes in a call, such as "(8, 8, 3) to (16, 16, 3)"."""
    return list(dict.fromkeys(f"{before[1:]} to {after[1:]}" for before, after in met.resized))


def torchs_default(settings: Settings) -> dict[str, Any]:
    """Return torch's usual settings for a layer that has these in Flax."""
    found = {name: TORCHS.get(name, value) for name, value in settings.items()}
    padding = settings.get(PADDING)
    if isinstance(padding, Same) and padding.usual is not None:
        found[PADDING] = padding.usual
    return found


class Same(str):
    """The padding `SAME` of a strided convolution in Flax; it depends on the size of the input.

    Attributes:
        usual: the padding that a network of torch has here; None for an even kernel.
    """

    usual: tuple[tuple[int, int], ...] | None = None


def torchs_resize(image: Array, shape: Sequence[int], method: Any, **_: Any) -> Array:
    """Resize an image by the rule of `torch.nn.functional.interpolate`.

    It stands for `jax.image.resize`, whose other arguments have no effect here. When it shrinks an
    image, it takes no mean of the pixels that one new pixel covers (`antialias`). Its "nearest"
    rounds down, and its cubic kernel has a slope of -0.75.
    """
    for axis, (before, after) in enumerate(zip(image.shape, shape, strict=True)):
        if before != after:
            weights = jnp.asarray(_weights(before, after, str(method)), image.dtype)
            image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis)), 0, axis)
    return image


def _weights(before: int, after: int, method: str) -> np.ndarray:
    """Return the matrix `(after, before)` that resizes one axis."""
    steps = np.arange(after)
    found = np.zeros((after, before), np.float32)
    if "nearest" in method:
        found[steps, np.floor(steps * before / after).astype(int)] = 1
        return found
    at = (steps + 0.5) * before / after - 0.5
    if "cubic" in method:
        taps, kernel = (-1, 0, 1, 2), _cubic
    else:
        at, taps, kernel = np.maximum(at, 0), (0, 1), lambda distance: 1 - distance
    low = np.floor(at).astype(int)
    for tap in taps:
        share = kernel(np.abs(at - low - tap))
        np.add.at(found, (steps, np.clip(low + tap, 0, before - 1)), share)
    return found


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)


def _name_of_eps(norm: Any) -> str:
    return EPS_OF_SQUARE if "RMS" in type(norm).__name__ else EPS


def _is_strided(strides: Any) -> bool:
    return max(_several(strides, 1)) > 1


def _pads(layer: Any) -> Any:
    """Return the padding of a strided convolution of Flax, as pairs or `Same`."""
    sizes = _several(layer.kernel_size, 1)
    strides, dilation = (
        _several(values, len(sizes)) for values in (layer.strides, layer.kernel_dilation)
    )
    padding = layer.padding
    if isinstance(padding, str) and padding.upper() == "VALID":
        return ((0, 0),) * len(sizes)
    if isinstance(padding, str):
        found = Same(padding)
        if all(k % 2 or k <= s for k, s in zip(sizes, strides, strict=True)):
            around = (
                d * (k - 1) // 2 if k % 2 else 0 for k, d in zip(sizes, dilation, strict=True)
            )
            found.usual = tuple((one, one) for one in around)
        return found
    pads = [padding] * len(sizes) if isinstance(padding, int) else list(padding)
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in pads)


def _torchs_pads(layer: Any) -> Any:
    sizes = _several(layer.kernel_size, 1)
    if layer.padding == "valid":
        return ((0, 0),) * len(sizes)
    return tuple((p, p) for p in _several(layer.padding, len(sizes)))


def _several(values: Any, count: int) -> tuple[int, ...]:
    """Return one number for each axis, from one for all, one for each, or none."""
    if values is None:
        return (1,) * count
    return (values,) * count if isinstance(values, int) else tuple(values)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return shown if len(names) == 1 else f"{len(names)} layers ({shown})"
