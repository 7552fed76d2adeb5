"""Says what a normaliser does: reads its fields, and runs it on a little."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from normlab.core import Array, Normaliser, State
from normlab.ops.moments import ShapeError

NONE = "none: every value by itself"

FOR_ALL = (
    "Channels are last. Statistics are float32 or wider for every input, and the output has the "
    "input's dtype. Masked elements count for nothing and come out as zero."
)
"""The promises of the contract for every normaliser, which no row repeats."""


def semantics(norm: Normaliser) -> dict[str, str]:
    """Map each aspect to what holds, in words; aspects that do not apply are left out.

    >>> from normlab.norms import LayerNorm
    >>> semantics(LayerNorm())["statistics"]
    'all channels together, at each position by itself'
    """
    fields = {f.name: getattr(norm, f.name) for f in dataclasses.fields(norm)}  # type: ignore
    rows: dict[str, str] = {}
    _, state = norm.init(_features(fields))
    training, evaluating = _reach(norm, fields, True), _reach(norm, fields, False)
    rows["statistics"] = training
    moving = {key: leaf for key, leaf in state.items() if key not in ("steps", "step")}
    rows["in evaluation"] = "the same" if training == evaluating and not moving else evaluating
    if moving:
        rows["in evaluation"] = f"the running {' and '.join(moving)}"
    if norm.facts.invariant_to:
        rows["unchanged by"] = ", ".join(sorted(norm.facts.invariant_to))
    if "eps" in fields:
        rows["eps"] = _eps(norm, fields)
    replaced, moves_on = _first_steps(norm, fields) if moving else (False, False)
    if "momentum" in fields:
        rows["momentum"] = horizon(fields["momentum"], debiased=replaced and moves_on)
    if moving:
        rows["state at first"] = _first(moving, replaced)
    if "unbiased_running_variance" in fields:
        over = "count - 1" if fields["unbiased_running_variance"] else "count"
        rows["running variance"] = f"divided by {over}; the normalising one by count"
    rows["parameters"] = _parameters(norm, fields)
    if "norm_batch" in fields:
        size = fields["norm_batch"]
        rows["norm batch"] = "all examples of a call" if size is None else f"{size} examples"
    if training != NONE:
        rows["one value"] = _one_value(norm, fields)
    return rows


def horizon(momentum: float, debiased: bool = False) -> str:
    """Say what a momentum means in steps.

    >>> horizon(0.9)
    '0.9 of the old value stays: 63% of a change is in after 10 steps'
    """
    if momentum == 1:
        return "1: every batch weighs alike" if debiased else "1: the state never moves"
    if momentum == 0:
        return "0: the last batch alone"
    steps = math.ceil(-1 / math.log(momentum) - 1e-9)
    unit = "step" if steps == 1 else "steps"
    return f"{momentum:g} of the old value stays: 63% of a change is in after {steps} {unit}"


def _eps(norm: Normaliser, fields: dict[str, Any]) -> str:
    """Say what eps does. "In the root" is the default of the fact, so it is tried first."""
    role, eps = norm.facts.eps_is, fields["eps"]
    if role == "a lower limit":
        return f"{eps:g}, the least length that is divided by"
    if role == "added":
        return f"{eps:g}, added to what is divided by, outside any root"
    if eps == 0:
        return "0: nothing keeps from a division by zero"
    features, deviation = _features(fields), math.sqrt(eps)
    signs = (-1.0) ** np.indices((_examples(fields), 4, 4, features)).sum(axis=0)
    params, state = norm.init(features)
    x = jnp.asarray(deviation * signs, jnp.float32)
    y, _ = jax.jit(norm.apply, static_argnames="train")(params, state, x, train=True)
    largest = float(jnp.abs(y).max())
    if math.isclose(largest, math.sqrt(0.5), rel_tol=0.01):
        return f"{eps:g}, inside the root: a deviation of {deviation:.2g} comes out as 0.71"
    values = f"{deviation:.2g} and {-deviation:.2g}"
    return f"{eps:g}: values of {values} in turn come out as {largest:.2g} at most"


def _first(state: State, replaced: bool) -> str:
    begin = []
    for name, leaf in state.items():
        values = np.unique(np.asarray(leaf))
        begin.append(f"{name} {values[0]:g}" if len(values) == 1 else name)
    return ", ".join(begin) + ("; the first batch replaces them" if replaced else "")


def _first_steps(norm: Normaliser, fields: dict[str, Any]) -> tuple[bool, bool]:
    """Return whether the first step leaves nothing of the first state, and the second moves it."""
    features = _features(fields)
    x = np.random.default_rng(0).standard_normal((_examples(fields), 3, 3, features)) + 1
    params, state = norm.init(features)
    counts = ("steps", "step")
    other = {key: leaf if key in counts else leaf + 1 for key, leaf in state.items()}
    step = jax.jit(lambda state, x: norm.apply(params, state, x, train=True)[1])
    first = jnp.asarray(x, jnp.float32)
    after, after_other = step(state, first), step(other, first)
    later = step(after, 2 * first + 1)

    def same(one: State, two: State) -> bool:
        close = (jnp.allclose(one[key], two[key], rtol=1e-5) for key in one if key not in counts)
        return all(map(bool, close))

    return same(after, after_other), not same(after, later)


def _features(fields: dict[str, Any]) -> int:
    """Return a number of channels that groups divide, with more than one in each."""
    return math.lcm(16, 2 * (fields.get("groups") or 1), 2 * (fields.get("group_size") or 1))


def _examples(fields: dict[str, Any]) -> int:
    return 2 * max(fields.get("norm_batch") or 1, fields.get("domains") or 1, 2)


def _parameters(norm: Normaliser, fields: dict[str, Any]) -> str:
    """List the shapes, with C for what grows with the number of channels."""
    features = _features(fields)
    small, large = (norm.init(size)[0] for size in (features, 2 * features))
    if not small:
        return "none"

    def shape(name: str) -> str:
        pairs = zip(small[name].shape, large[name].shape, strict=True)
        return ", ".join(str(a) if a == b else "C" if a == features else "..." for a, b in pairs)

    return ", ".join(f"{name} ({shape(name)})" for name in small)


def _reach(norm: Normaliser, fields: dict[str, Any], train: bool) -> str:
    """Find which other values an output depends on, by changing them."""
    features = _features(fields)
    x = np.random.default_rng(0).standard_normal((_examples(fields), 3, 3, features)) + 1
    variants = []
    for where in ("example", "position", *range(1, features)):
        other = x.copy()
        if where == "example":
            other[1:] = 2 * other[1:] + 1
        elif where == "position":
            other[0, 1:] = 2 * other[0, 1:] + 1
        else:
            other[..., where] = 2 * other[..., where] + 1
        variants.append(other)
    stack = jnp.asarray(np.stack([x, *variants]), jnp.float32)
    params, state = norm.init(features)
    if not train:
        _, state = jax.jit(norm.apply, static_argnames="train")(params, state, stack[0], train=True)

    def one(x: Array) -> Array:
        return norm.apply(params, state, x, train=train)[0][0, 0, 0, 0]

    y = np.asarray(jax.jit(jax.vmap(one))(stack))
    moved = np.abs(y[1:] - y[0]) > 1e-6 * max(1, abs(y[0]))
    example, position, channels = moved[0], moved[1], 1 + int(moved[2:].sum())
    if not moved.any():
        return NONE
    if channels == 1:
        of = "each channel by itself"
    elif channels == features:
        of = "all channels together"
    elif "groups" in fields:
        of = f"the channels of each of {fields['groups']} groups together"
    else:
        of = f"{channels} of {features} channels together"
    over = {
        (True, True): "over the examples and positions",
        (True, False): "over the examples",
        (False, True): "over the positions of each example",
        (False, False): "at each position by itself",
    }[bool(example), bool(position)]
    return f"{of}, {over}"


def _one_value(norm: Normaliser, fields: dict[str, Any]) -> str:
    """Make a batch of one example of one position."""
    features = _features(fields)
    params, state = norm.init(features)
    x = jnp.arange(1.0, features + 1).reshape(1, 1, 1, features)
    try:
        y, _ = jax.jit(norm.apply, static_argnames="train")(params, state, x, train=True)
    except ShapeError:
        return "of one example of one position: refused in training"
    zero = bool((jnp.abs(y) < 1e-6).all())
    return f"of one example of one position: {'zero' if zero else 'normalised'} in training"
