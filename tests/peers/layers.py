"""One way to run a layer of each library: steps of training with gradients, each then evaluated.

A maker such as `torch_layer("BatchNorm2d", 4)` gives a function of (batches, scale, bias) that
returns `y`, `dx`, `dscale`, `dbias` of training, `evaluated`, and the running `mean` and `variance`
that the library keeps, each with a leading axis of steps. Libraries are imported when it is called.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Run = Callable[..., dict[str, np.ndarray]]


def stacked(steps: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {key: np.stack([np.asarray(one[key]) for one in steps]) for key in steps[0]}


def torch_layer(name: str, *args: Any, library="torch", first=True, **kwargs: Any) -> Run:
    """`first`: channels on axis 1."""

    def run(batches, scale, bias):
        torch = importlib.import_module("torch")
        home = torch.nn if library == "torch" else importlib.import_module("timm.layers")
        layer = getattr(home, name)(*args, **kwargs)
        own = {"scale": getattr(layer, "weight", None), "bias": getattr(layer, "bias", None)}
        own = {key: value for key, value in own.items() if value is not None}
        with torch.no_grad():
            for key, value in own.items():
                value.copy_(torch.tensor({"scale": scale, "bias": bias}[key]))

        def call(x):
            return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if first else layer(x)

        steps = []
        for x, dy in batches:
            leaf = torch.tensor(x, requires_grad=True)
            layer.train().zero_grad()
            y = call(leaf)
            y.backward(torch.tensor(dy))
            one = {"y": y.detach(), "dx": leaf.grad}
            one |= {f"d{key}": value.grad.clone() for key, value in own.items()}
            with torch.no_grad():
                one["evaluated"] = layer.eval() and call(torch.tensor(x))
            for key, buffer in (("mean", "running_mean"), ("variance", "running_var")):
                if getattr(layer, buffer, None) is not None:
                    one[key] = getattr(layer, buffer).clone()
            steps.append(one)
        return stacked(steps)

    return run


def through_jax(step: Callable, state: Any, params: Any, batches: Any, kept: Callable) -> Any:
    """`step(params, state, x, train) -> (y, state)` over the batches.

    `kept(state)` picks the running statistics that the library shows.
    """

    @jax.jit
    def train(params, state, x, dy):
        y, vjp, moved = jax.vjp(lambda p, x: step(p, state, x, True), params, x, has_aux=True)
        return y, vjp(dy), moved

    evaluate = jax.jit(lambda params, state, x: step(params, state, x, False)[0])
    steps = []
    for x, dy in batches:
        y, (dparams, dx), state = train(params, state, x, dy)
        one = {"y": y, "dx": dx, "evaluated": evaluate(params, state, x), **kept(state)}
        steps.append(one | {f"d{key}": value.reshape(-1) for key, value in dparams.items()})
    return stacked(steps)


def flax_layer(name: str, **kwargs: Any) -> Run:
    def run(batches, scale, bias):
        import flax.linen as nn

        layer = getattr(nn, name)(**kwargs)
        evaluation = {"use_running_average": True} if name == "BatchNorm" else {}
        training = {"use_running_average": False} if name == "BatchNorm" else {}
        variables = layer.init(jax.random.key(0), batches[0][0], **training)
        given = {"scale": scale, "bias": bias}
        params = {key: jnp.asarray(given[key]) for key in variables["params"]}

        def step(params, stats, x, train):
            variables = {"params": params, "batch_stats": stats}
            how = training if train else evaluation
            y, moved = layer.apply(variables, x, mutable=["batch_stats"], **how)
            return y, moved.get("batch_stats", {})

        def kept(stats):
            return {"mean": stats["mean"], "variance": stats["var"]} if stats else {}

        return through_jax(step, variables.get("batch_stats", {}), params, batches, kept)

    return run


def haiku_layer(name: str, *args: Any, **kwargs: Any) -> Run:
    def run(batches, scale, bias):
        hk = importlib.import_module("haiku")

        def forward(x, train):
            layer = getattr(hk, name)(*args, **kwargs)
            return layer(x, is_training=train) if name == "BatchNorm" else layer(x)

        model = hk.transform_with_state(forward)
        params, state = model.init(jax.random.key(0), batches[0][0], True)
        (module,) = params
        words = {"scale": ("scale", scale), "offset": ("bias", bias)}
        shapes = {words[key][0]: (key, leaf.shape) for key, leaf in params[module].items()}
        given = {words[key][0]: jnp.asarray(words[key][1]) for key in params[module]}

        def step(params, state, x, train):
            own = {key: params[ours].reshape(shape) for ours, (key, shape) in shapes.items()}
            return model.apply({module: own}, state, None, x, train)

        def kept(state):
            if not state:
                return {}
            averages = {key.split("/~/")[-1]: value["average"] for key, value in state.items()}
            return {
                "mean": averages["mean_ema"].reshape(-1),
                "variance": averages["var_ema"].reshape(-1),
            }

        return through_jax(step, state, given, batches, kept)

    return run


def equinox_layer(name: str, *args: Any, over: int = 1, **kwargs: Any) -> Run:
    """`over`: 1 where a layer takes an example with channels first, 3 where it takes a pixel."""

    def run(batches, scale, bias):
        eqx = importlib.import_module("equinox")
        made = getattr(eqx.nn, name)
        stateful = name == "BatchNorm"
        layer, state = eqx.nn.make_with_state(made)(*args, **kwargs)
        params = {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias)}

        def step(params, state, x, train):
            own = eqx.tree_at(
                lambda m: (m.weight, m.bias), layer, (params["scale"], params["bias"])
            )
            if stateful:
                call = jax.vmap(
                    lambda x, s: own(x, s, inference=not train),
                    in_axes=(0, None),
                    out_axes=(0, None),
                    axis_name="n",
                )
                y, state = call(jnp.moveaxis(x, -1, 1), state)
                return jnp.moveaxis(y, 1, -1), state
            function = own
            for _ in range(over):
                function = jax.vmap(function)
            first = over == 1
            y = function(jnp.moveaxis(x, -1, 1) if first else x)
            return (jnp.moveaxis(y, 1, -1) if first else y), state

        def kept(state):
            if not stateful:
                return {}
            index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
            mean, variance = state.get(index)
            return {"mean": mean, "variance": variance}

        return through_jax(step, state, params, batches, kept)

    return run


def keras_layer(name: str, **kwargs: Any) -> Run:
    def run(batches, scale, bias):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        keras = importlib.import_module("keras")
        layer = getattr(keras.layers, name)(**kwargs)
        layer.build(batches[0][0].shape)
        words = {"gamma": "scale", "scale": "scale", "beta": "bias"}
        names = [words[variable.name] for variable in layer.trainable_variables]
        params = {key: jnp.asarray({"scale": scale, "bias": bias}[key]) for key in names}
        state = [variable.value for variable in layer.non_trainable_variables]
        training = {"training": True} if name == "BatchNormalization" else {}

        def step(params, state, x, train):
            own = [params[key] for key in names]
            how = {key: train for key in training}
            return layer.stateless_call(own, state, x, **how)

        def kept(state):
            return {"mean": state[0], "variance": state[1]} if state else {}

        return through_jax(step, state, params, batches, kept)

    return run


def torch_kernel(name: str) -> Callable[..., dict[str, np.ndarray]]:
    """The kernel that a convolution of timm uses, seen by images that are one number each."""

    def run(kernel, dy):
        torch, home = importlib.import_module("torch"), importlib.import_module("timm.layers")
        height, width, inputs, units = kernel.shape
        layer = getattr(home, name)(inputs, units, height, padding=0, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(kernel).permute(3, 2, 0, 1))
        size = height * width * inputs
        images = torch.eye(size).reshape(size, height, width, inputs).permute(0, 3, 1, 2)
        used = layer(images).reshape(height, width, inputs, units)
        used.backward(torch.tensor(dy))
        gradient = layer.weight.grad.permute(2, 3, 1, 0)
        return {"kernel": used.detach().numpy(), "gradient": gradient.numpy()}

    return run


def torch_weight_norm(kernel, dy):
    """Torch's parametrization of a dense layer with the kernel's units."""
    torch = importlib.import_module("torch")
    flat = kernel.reshape(-1, kernel.shape[-1])
    layer = torch.nn.Linear(*flat.shape, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(flat.T))
    torch.nn.utils.parametrizations.weight_norm(layer)
    used = layer.weight
    used.backward(torch.tensor(dy.reshape(flat.shape).T))
    gradient = layer.parametrizations.weight.original1.grad.numpy().T.reshape(kernel.shape)
    return {"kernel": used.detach().numpy().T.reshape(kernel.shape), "gradient": gradient}


def flax_weight_norm(kernel, dy):
    """Flax's wrapper around a dense layer with the kernel's units."""
    import flax.linen as nn

    flat = kernel.reshape(-1, kernel.shape[-1])
    layer = nn.WeightNorm(nn.Dense(flat.shape[1], use_bias=False, name="dense"))
    x = jnp.eye(flat.shape[0])
    variables = layer.init(jax.random.key(0), x)

    def used(raw):
        params = jax.tree.map(lambda leaf: raw if leaf.ndim == 2 else leaf, variables["params"])
        return layer.apply({**variables, "params": params}, x)

    y, vjp = jax.vjp(used, jnp.asarray(flat))
    (gradient,) = vjp(jnp.asarray(dy.reshape(flat.shape)))
    return {
        "kernel": np.asarray(y).reshape(kernel.shape),
        "gradient": np.asarray(gradient).reshape(kernel.shape),
    }
