"""Measures which elements of a batch a normaliser brings together, and shows it as a picture."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from normlab.catalogue import NORMS, allow
from normlab.core import Normaliser
from normlab.errors import UserError
from normlab.reports.figures.sharing import draw

EXAMPLES, HEIGHT, WIDTH, CHANNELS = 4, 3, 3, 8
"""The batch of the picture, unless a field of the normaliser asks for more of something."""

CHANGES = (1.0, -1.0, 100.0)
"""Each element is changed by these; some statistics barely feel a small change."""

MOVED = 1e-5
"""An output has moved if it differs by so much of the largest output; float32 rounds to 1e-7."""


def show(norm: Normaliser | type | str, **settings: Any) -> Figure:
    """Draw which elements of an image batch share statistics, as measured in a training step.

    One output is chosen. Every element of the input is changed in turn, and those that move the
    chosen output are coloured: their values enter the statistics that it is normalised by.

    Args:
        norm: a normaliser, its class, or its name in the catalogue.
        **settings: the normaliser's fields, if `norm` is a class or a name, as `groups=4`.

    Returns:
        A figure with a row for each example and a column for each channel.

    Raises:
        UserError: there is no such normaliser, or it cannot be applied to a batch of images.

    >>> figure = show("group_norm", groups=4)
    """
    described = described_norm(norm, settings)
    return draw(repr(described), *sharing(described))


def described_norm(norm: Normaliser | type | str, settings: Mapping[str, Any]) -> Normaliser:
    """Make the normaliser that a name, a class or an instance stands for."""
    if isinstance(norm, str):
        allow([norm])  # whoever calls this in Python runs their own code anyway
        norm = NORMS.load(norm)
    if isinstance(norm, type):
        try:
            norm = norm(**settings)
        except TypeError as error:
            raise UserError(f"{norm.__name__}: {error}") from None
    elif settings:
        raise UserError(f"the fields of {norm!r} are settled: give its name or class with settings")
    if not hasattr(norm, "apply") or not hasattr(norm, "init"):
        raise UserError(f"a normaliser, its class or its name is needed, found {norm!r}")
    return norm  # type: ignore[return-value]


def sharing(norm: Normaliser) -> tuple[np.ndarray, tuple[int, ...]]:
    """Measure which elements of the input move one output in training.

    Returns:
        `(N, H, W, C)` booleans, and the index of the output.
    """
    shape = _shape(norm)
    chosen = (1, shape[1] // 2, shape[2] // 2, min(2, shape[3] - 1))
    params, state = norm.init(shape[3])
    # As they start, some parameters switch a statistic off: a gate of zero, or a scale of zero.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.uniform(0.2, 0.8, leaf.shape), leaf.dtype), params
    )
    # Large at the chosen place, because a threshold hides what moves a small output.
    x = jnp.asarray(rng.normal(0.5, 1.0, shape), jnp.float32).at[chosen].set(3.0)
    more = _more(norm, shape[0])

    def output(changed: jax.Array) -> jax.Array:
        return norm.apply(params, state, changed, train=True, **more)[0][chosen]

    def moved_by(place: jax.Array) -> jax.Array:
        step = jnp.zeros(x.size, x.dtype).at[place].set(1.0).reshape(shape)
        moved = [jnp.abs(output(x + change * step) - output(x)) for change in CHANGES]
        return jnp.stack(moved).max()

    try:
        moves = jax.jit(lambda: jax.lax.map(moved_by, jnp.arange(x.size)))()
        largest = jnp.abs(norm.apply(params, state, x, train=True, **more)[0]).max()
    except (TypeError, ValueError) as error:
        raise UserError(f"{norm!r} cannot be applied to a batch of images: {error}") from error
    found = np.asarray(moves).reshape(shape) > MOVED * max(float(largest), 1e-3)
    found[chosen] = True
    return found, chosen


def _shape(norm: Normaliser) -> tuple[int, int, int, int]:
    """Choose a batch that shows every part: two groups or more, of two channels or more."""
    groups, batch = getattr(norm, "groups", 1), getattr(norm, "norm_batch", None) or 1
    channels = math.lcm(CHANNELS, 2 * groups) if isinstance(groups, int) else CHANNELS
    examples = max(EXAMPLES, 2 * batch) if isinstance(batch, int) else EXAMPLES
    return examples, HEIGHT, WIDTH, channels


def _more(norm: Normaliser, examples: int) -> dict[str, Any]:
    """Give examples the domains and conditions that some normalisers are told: 0, 1, 0, 1."""
    taken = inspect.signature(norm.apply).parameters
    labels = jnp.arange(examples, dtype=jnp.int32) % 2
    return {name: labels for name in ("domain", "condition") if name in taken}
