"""Gives layers of each library parameters, and asks them for outputs and gradients.

A record is what is compared: outputs and input gradients of two training steps, the parameters'
gradients in the last, and the evaluation after it. Libraries are imported when first asked for.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.norms.conftest import sample

SHAPE = (4, 2, 3, 8)
C, STEPS = SHAPE[-1], 2
Record = dict[str, np.ndarray]
Step = Callable[..., tuple[Any, Any]]
"""(params, state, x, train) -> (y, state), all of jax."""


def inputs() -> list[tuple[np.ndarray, np.ndarray]]:
    """An input and a cotangent for each step."""
    return [(sample(SHAPE, i, 1 + i, seed=i), sample(SHAPE, seed=50 + i)) for i in range(STEPS)]


def jax_record(step: Step, params, state, converted=lambda state: state) -> Record:
    @jax.jit
    def both(params, state, x, dy):
        y, vjp, state = jax.vjp(lambda p, x: step(p, state, x, True), params, x, has_aux=True)
        return y, vjp(dy), state

    record, params = {}, jax.tree.map(jnp.asarray, params)
    for i, (x, dy) in enumerate(inputs()):
        y, (d_params, d_x), state = both(params, state, x, dy)
        record |= {f"y{i}": y, f"d_x{i}": d_x, **{f"d_{k}": v for k, v in d_params.items()}}
    evaluated, _ = step(params, converted(state), jnp.asarray(inputs()[0][0]), False)
    return {k: np.asarray(v, np.float32) for k, v in {**record, "evaluated": evaluated}.items()}


def of_flax(make):
    """flax's names for scale and bias are ours."""

    def theirs(params):
        def step(params, state, x, train):
            return make(train).apply({"params": params, **state}, x, mutable=["batch_stats"])

        stats = {"batch_stats": {"mean": jnp.zeros(C), "var": jnp.ones(C)}}
        return jax_record(step, params, stats)

    return theirs


def of_haiku(make, **call):
    """haiku calls the bias an offset, and has a singleton axis for each of the others."""

    def theirs(params):
        import haiku as hk

        net = hk.transform_with_state(
            lambda x, train: make(hk)(x, **({"is_training": train} if call else {}))
        )
        own, state = net.init(None, jnp.zeros(SHAPE), True)

        def step(params, state, x, train):
            given = {"scale": params["scale"], "offset": params.get("bias")}
            filled = {
                m: {k: given[k].reshape(v.shape) for k, v in p.items()} for m, p in own.items()
            }
            return net.apply(filled, state, None, x, train)

        return jax_record(step, params, state)

    return theirs


def of_keras(make):
    """keras calls the scale gamma (of RMS, scale) and the bias beta."""

    def theirs(params):
        import keras

        layer = make(keras.layers)
        layer.build(SHAPE)
        names = {"gamma": "scale", "scale": "scale", "beta": "bias"}

        def step(params, state, x, train):
            own = [params[names[v.name]] for v in layer.trainable_variables]
            options = {"training": train} if layer._call_has_training_arg else {}
            y, state = layer.stateless_call(own, state, x, **options)
            return (y if own else y * params["scale"]), state

        return jax_record(step, params, [v.value for v in layer.non_trainable_variables])

    return theirs


def of_equinox(make, over):
    """equinox calls the scale a weight, and takes one example; `over` maps it over the batch."""

    def theirs(params):
        import equinox as eqx

        def step(params, state, x, train):
            layer = make(eqx.nn)
            layer = eqx.tree_at(lambda m: m.weight, layer, params["scale"])
            if "bias" in params:
                layer = eqx.tree_at(lambda m: m.bias, layer, params["bias"])
            return over(layer)(x), state

        return jax_record(step, params, {})

    return theirs


def by_position(layer):
    return jax.vmap(jax.vmap(jax.vmap(layer)))


def channels_first(layer):
    return lambda x: jax.vmap(layer)(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


NAMES = {"scale": ["weight"], "bias": ["bias"], "v": ["v"], "threshold": ["tau"]}


def of_torch(make, last=False, names=NAMES):
    """torch calls the scale a weight, and has channels second unless `last`."""

    def theirs(params):
        import torch

        layer = make()
        own = {k: [layer.get_parameter(n) for n in names[k]] for k in params if k in names}
        with torch.no_grad():
            for key, found in own.items():
                each = params[key] if len(found) > 1 else [params[key]]
                for parameter, value in zip(found, each, strict=True):
                    parameter.copy_(torch.tensor(value))

        def call(x):
            return layer(x) if last else layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

        record = {}
        for i, (x, dy) in enumerate(inputs()):
            layer.train().zero_grad()
            leaf = torch.tensor(x, requires_grad=True)
            y = call(leaf)
            y.backward(torch.tensor(dy))
            record |= {f"y{i}": y.detach().numpy(), f"d_x{i}": leaf.grad.numpy()}
        for key, found in own.items():
            grads = [parameter.grad.numpy() for parameter in found]
            record[f"d_{key}"] = np.stack(grads) if len(grads) > 1 else grads[0]
        with torch.no_grad():
            record["evaluated"] = call(layer.eval() and torch.tensor(inputs()[0][0])).numpy()
        return record

    return theirs
