"""Where the time of normlab's training step goes, pass by pass: each piece timed by itself.

`python -m experiments.speed.step_passes MODEL BATCH ROUNDS` prints rows as JSON: what a piece costs
in a step (all its layers together), what the same costs by `lax` and its autodiff, the share of the
whole step, and the arithmetic a second. The pieces do not add up to the step: within it XLA fuses
some, and overlaps others.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed import harness, step_nets
from normlab.data.augment import Crop, Flip, apply_all
from normlab.models import convolution
from normlab.models.slots import Norm
from normlab.training.compiled import Compiled
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

Candidates = dict[str, Callable[[], Any]]


def rows(name: str, batch: int, rounds: int) -> list[dict[str, Any]]:
    """A row a piece."""
    given = DeviceData.put(step_nets.data(batch))
    program = Program(step_nets.model(name), step_nets.optimizer(), Recipe(batch_size=batch))
    compiled = Compiled(program, given)
    order = jnp.arange(compiled.train_examples, dtype=jnp.int32)
    state = compiled.init(0)

    def whole() -> Any:
        nonlocal state
        state, loss = compiled.step(state, order, 0)
        return loss

    convolutions, norms = layers(step_nets.model(name), batch)
    candidates: dict[str, Candidates] = {"whole step": {"ours": whole}}
    counts: dict[str, int] = {}
    operations: dict[str, float] = {}
    first = next(iter(convolutions))
    for key, count in convolutions.items():
        shape, kernel, strides, padding = key
        label = f"{shape[1]}x{shape[2]}, {kernel[2]} to {kernel[3]}, stride {strides[0]}"
        for part, pair in passes(shape, kernel, strides, padding).items():
            if key == first and part == "input gradient":
                continue  # nobody needs the gradient of the images
            piece = f"{part}: {label}"
            candidates[piece], counts[piece] = pair, count
            pixels = np.prod(shape[:3]) / np.prod(strides)
            operations[piece] = count * 2 * float(pixels * np.prod(kernel))
    for shape, count in norms.items():
        piece = f"batch norm and relu, both ways: {shape[1]}x{shape[2]}, {shape[3]}"
        candidates[piece], counts[piece] = {"ours": normaliser(shape)}, count
    candidates["optimiser"] = {"ours": optimiser(compiled.init(0).params)}
    candidates["batch from the data"] = {"ours": pipeline(program, given, order, ())}
    piece = "batch from the data, flipped and cropped (not in the step)"
    candidates[piece] = {"ours": pipeline(program, given, order, (Flip(), Crop()))}

    flat = {(piece, way): c for piece, pair in candidates.items() for way, c in pair.items()}
    names = {" ".join(key): key for key in flat}
    times = harness.in_turns({n: flat[key] for n, key in names.items()}, rounds=rounds, least=0.0)
    ms = {names[n]: 1e3 * float(np.median(seconds)) for n, seconds in times.items()}
    step = ms["whole step", "ours"]
    found = [
        {
            "model": name,
            "piece": piece,
            "times": counts.get(piece, 1),
            "ms in a step": counts.get(piece, 1) * ms[piece, "ours"],
            "ms by lax": counts[piece] * ms[piece, "lax"] if (piece, "lax") in ms else None,
            "% of the step": 100 * counts.get(piece, 1) * ms[piece, "ours"] / step,
            "GFLOP/s": (
                operations[piece] / (1e6 * counts[piece] * ms[piece, "ours"])
                if piece in operations
                else None
            ),
        }
        for piece in candidates
    ]
    return found + sums(name, found)


def sums(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a kind of pass, over all its shapes."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        kind, colon, _ = row["piece"].partition(": ")
        if colon:
            kinds.setdefault(kind, []).append(row)
    heads = ("times", "ms in a step", "ms by lax", "% of the step")
    return [
        {
            "model": name,
            "piece": f"all: {kind}",
            **{head: sum(row[head] for row in parts) for head in heads if parts[0][head]},
        }
        for kind, parts in kinds.items()
    ]


def layers(model: nn.Module, batch: int) -> tuple[Counter[Any], Counter[Any]]:
    """Count each convolution and each normaliser by shape in a step."""
    convolutions, norms = Counter(), Counter()

    def meet(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and isinstance(module, nn.Conv):
            size, features = tuple(module.kernel_size), module.features  # pyright: ignore[reportArgumentType]
            kernel = (*size, args[0].shape[-1], features)
            padding = ((module.padding, module.padding),) * 2
            convolutions[args[0].shape, kernel, tuple(module.strides), padding] += 1  # pyright: ignore[reportArgumentType]
        if context.method_name == "__call__" and isinstance(module, Norm):
            norms[args[0].shape] += 1
        return call(*args, **kwargs)

    with nn.intercept_methods(meet):
        images = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    return convolutions, norms


def passes(shape: Any, kernel: Any, strides: Any, padding: Any) -> dict[str, Candidates]:
    """Time the three passes of a convolution, ours and autodiff's."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], kernel)
    where = {"strides": strides, "padding": padding}

    def by_lax(x: Any, w: Any) -> Any:
        layout = convolution.LAYOUT
        return jax.lax.conv_general_dilated(x, w, strides, padding, dimension_numbers=layout)

    dy = jax.random.normal(keys[2], by_lax(x, w).shape)

    def three(conv: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
        return {
            "forward": partial(jax.jit(conv), x, w),
            "input gradient": partial(
                jax.jit(lambda dy, w: jax.linear_transpose(lambda x: conv(x, w), x)(dy)), dy, w
            ),
            "kernel gradient": partial(
                jax.jit(lambda x, dy: jax.linear_transpose(lambda w: conv(x, w), w)(dy)), x, dy
            ),
        }

    ours, lax = three(partial(convolution.convolve, **where)), three(by_lax)
    return {part: {"ours": ours[part], "lax": lax[part]} for part in ours}


def normaliser(shape: tuple[int, ...]) -> Callable[[], Any]:
    """Batch norm and relu with their gradients."""
    slot = step_nets.model("convnet").norm
    params, state = slot.init(shape[-1])
    x, dy = (jax.random.normal(jax.random.key(seed), shape) for seed in (0, 1))

    @jax.jit
    def both(params: Any, x: Any, dy: Any) -> Any:
        y, back = jax.vjp(
            lambda params, x: nn.relu(slot.apply(params, state, x, train=True)[0]), params, x
        )
        return y, back(dy)

    return partial(both, params, x, dy)


def optimiser(params: Any) -> Callable[[], Any]:
    """The update of all parameters."""
    sgd = step_nets.optimizer()

    @jax.jit
    def update(params: Any, grads: Any, moments: Any) -> Any:
        updates, moments = sgd.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    return partial(update, params, params, sgd.init(params))


def pipeline(program: Program, given: DeviceData, order: Any, augment: Any) -> Callable[[], Any]:
    """Time the assembly of a batch, as in the step."""
    size = program.recipe.batch_size

    @jax.jit
    def cut(given: DeviceData, order: Any, key: Any) -> Any:
        images = given.train.images[order[:size]].astype(jnp.float32)
        return given.standardised(apply_all(augment, key, images))

    return partial(cut, given, order, jax.random.key(0))


if __name__ == "__main__":
    print(json.dumps(rows(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
