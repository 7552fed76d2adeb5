"""The training steps that `step` compares: normlab's own, and as one writes them in flax and torch.

`python -m experiments.speed.step_nets PEER MODEL BATCH DTYPE` is a worker: it makes its step, says
what it lost in the first few, and then takes as many steps as each line on its standard input says,
and answers with the seconds. A library so has a process, an environment and threads of its own, and
waits while another has its turn.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from normlab.data.dataset import Dataset, Split
from normlab.engine.process import prepare
from normlab.models.plain import Convnet
from normlab.models.resnet import Resnet
from normlab.models.vit import Vit
from normlab.norms import BatchNorm, LayerNorm
from normlab.training.compiled import Compiled
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

WIDTHS = (32, 64, 128)
WIDTH, DEPTH, HEADS, PATCH = 192, 6, 3, 4
"""Of the transformer."""
CLASSES, BATCHES = 10, 4
RATE, MOMENTUM = 0.1, 0.9
CHECKED = 3
IMAGE = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)

Step = Callable[[int], float]
"""Takes the step of this number, waits for it, and returns the loss."""


def data(batch: int, size: int = 32) -> Dataset:
    """Make a few batches of noise with labels: the content of an image does not change its cost."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (BATCHES * batch, size, size, 3), dtype=np.uint8)
    labels = draw.integers(0, CLASSES, len(images), dtype=np.int32)
    split = Split(images, labels)
    return Dataset("noise", split, split, tuple(str(label) for label in range(CLASSES)))


def batches(batch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make the batches of normlab's step in advance, so that a peer need not cut them out."""
    given = data(batch)
    images = np.asarray(DeviceData.put(given).standardised(jnp.asarray(given.train.images)))
    parts = np.split(images, BATCHES), np.split(given.train.labels, BATCHES)
    return list(zip(*parts, strict=True))


def model(name: str, dtype: Any = "float32") -> nn.Module:
    """Make normlab's ResNet-20 or plain convnet with batch norm, or transformer with layer norm."""
    if name == "convnet":
        return Convnet(norm=BatchNorm(), classes=CLASSES, widths=WIDTHS, dtype=dtype)
    if name == "vit":
        size: dict[str, Any] = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "patch": PATCH}
        return Vit(norm=LayerNorm(), classes=CLASSES, dtype=dtype, **size)
    return Resnet(norm=BatchNorm(), classes=CLASSES, dtype=dtype)


def optimizer() -> optax.GradientTransformation:
    """SGD with momentum."""
    return optax.sgd(RATE, MOMENTUM)


def normlab(name: str, batch: int, dtype: str = "float32") -> Step:
    """Make the step of `normlab.training`, compiled as in `fit`; the state is donated."""
    program = Program(model(name, dtype), optimizer(), Recipe(batch_size=batch))
    given = data(batch)
    compiled = Compiled(program, DeviceData.put(given))
    order = jnp.arange(compiled.train_examples, dtype=jnp.int32)
    state = compiled.init(0)
    state = state._replace(params={**state.params, **jax.tree.map(jnp.asarray, start(name))})

    def step(number: int) -> float:
        nonlocal state
        state, loss = compiled.step(state, order, 0)
        return float(loss)

    return step


class FlaxNet(nn.Module):
    """Both networks of convolutions, written in linen."""

    name_of: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Logits."""

        def conv(features: int, stride: int = 1) -> nn.Conv:
            options: dict[str, Any] = {"padding": 1, "use_bias": False, "dtype": self.dtype}
            return nn.Conv(features, (3, 3), (stride, stride), **options)

        def norm() -> nn.BatchNorm:
            return nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)

        if self.name_of == "convnet":
            for stage, features in enumerate(WIDTHS):
                if stage:
                    x = nn.max_pool(x, (2, 2), (2, 2))
                for _ in range(2):
                    x = nn.relu(norm()(conv(features)(x)))
            return nn.Dense(CLASSES)(x.mean(axis=(1, 2)).astype(jnp.float32))
        x = nn.relu(norm()(conv(16)(x)))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage and not block else 1
                y = nn.relu(norm()(conv(features, stride)(x)))
                y = norm()(conv(features)(y))
                new = features - x.shape[-1]
                x = jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, new)))
                x = nn.relu(x + y)
        return nn.Dense(CLASSES)(x.mean(axis=(1, 2)).astype(jnp.float32))


def start(name: str) -> dict[str, Any]:
    """Make kernels and biases with which every step starts, without compilation."""
    shapes = jax.eval_shape(partial(model(name).init, train=False), jax.random.key(0), IMAGE)
    draw = np.random.default_rng(0)

    def weight(shape: tuple[int, ...]) -> np.ndarray:
        deviation = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.0
        return (deviation * draw.standard_normal(shape)).astype(np.float32)

    drawn = {
        layer: leaves
        for layer, leaves in shapes["params"].items()
        if layer.startswith(("Conv_", "Dense_", "embedding"))
    }
    return jax.tree.map(lambda leaf: weight(leaf.shape), drawn)


def flax(name: str, batch: int, dtype: str = "float32") -> Step:
    """Make a plain jitted step of a linen network."""
    net, sgd = FlaxNet(name, jnp.dtype(dtype)), optimizer()
    given = [(jnp.asarray(images), jnp.asarray(labels)) for images, labels in batches(batch)]
    shapes = jax.eval_shape(partial(net.init, train=True), jax.random.key(0), IMAGE)
    ones = ("scale", "var")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(leaf.shape, float(path[-1].key in ones), np.float32), shapes
    )
    params = jax.tree.map(jnp.asarray, {**variables["params"], **start(name)})
    statistics = jax.tree.map(jnp.asarray, variables["batch_stats"])
    moments = sgd.init(params)

    @jax.jit
    def train(params: Any, statistics: Any, moments: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> Any:
            held = {"params": params, "batch_stats": statistics}
            logits, moved = net.apply(held, images, True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), moved["batch_stats"]

        (value, moved), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, after = sgd.update(grads, moments, params)
        return optax.apply_updates(params, updates), moved, after, value

    def step(number: int) -> float:
        nonlocal params, statistics, moments
        now = given[number % BATCHES]
        params, statistics, moments, loss = train(params, statistics, moments, *now)
        return float(loss)

    return step


def torch_convolutions(name: str) -> Any:
    """Make torch's ResNet-20 or convnet with the weights of `start`."""
    torch = importlib.import_module("torch")
    layers, functional = torch.nn, torch.nn.functional

    class Unit(layers.Module):
        def __init__(self, before: int, after: int, stride: int = 1):
            super().__init__()
            self.conv = layers.Conv2d(before, after, 3, stride, padding=1, bias=False)
            self.norm = layers.BatchNorm2d(after)

        def forward(self, x: Any) -> Any:
            return self.norm(self.conv(x))

    class Net(layers.Module):
        def __init__(self):
            super().__init__()
            plan = [(16, 1)] + [
                (features, 2 if stage and not layer else 1)
                for stage, features in enumerate((16, 32, 64))
                for layer in range(6)
            ]
            if name == "convnet":
                plan = [(features, 1) for features in WIDTHS for _ in range(2)]
            widths = [3, *(after for after, _ in plan)]
            self.units = layers.ModuleList(
                Unit(before, after, stride)
                for before, (after, stride) in zip(widths, plan, strict=False)
            )
            self.head = layers.Linear(widths[-1], CLASSES)

        def forward(self, x: Any) -> Any:
            if name == "convnet":
                for number, unit in enumerate(self.units):
                    if number in (2, 4):
                        x = functional.max_pool2d(x, 2)
                    x = torch.relu(unit(x))
                return self.head(x.mean(dim=(2, 3)))
            first, *rest = self.units
            x = torch.relu(first(x))
            for one, two in zip(rest[::2], rest[1::2], strict=True):
                y = two(torch.relu(one(x)))
                stride, new = one.conv.stride[0], y.shape[1] - x.shape[1]
                x = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, new))
                x = torch.relu(x + y)
            return self.head(x.mean(dim=(2, 3)))

    net, weights = Net(), start(name)
    with torch.no_grad():
        for number, unit in enumerate(net.units):
            kernel = np.asarray(weights[f"Conv_{number}"]["kernel"]).transpose(3, 2, 0, 1)
            unit.conv.weight.copy_(torch.tensor(kernel.copy()))
        net.head.weight.copy_(torch.tensor(np.asarray(weights["Dense_0"]["kernel"]).T.copy()))
        net.head.bias.copy_(torch.tensor(np.array(weights["Dense_0"]["bias"])))
    return net


def torch_transformer() -> Any:
    """Make torch's transformer with the weights of `start`: one product for q, k and v."""
    torch = importlib.import_module("torch")
    layers, functional, weights = torch.nn, torch.nn.functional, start("vit")

    def linear(*numbers: int) -> Any:
        given = [weights[f"Dense_{number}"] for number in numbers]
        kernel, bias = (np.concatenate([one[leaf] for one in given], -1) for leaf in given[0])
        kernel, bias = (kernel, bias) if kernel.ndim == 2 else (bias, kernel)
        layer = layers.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias)
        return layer

    class Block(layers.Module):
        def __init__(self, first: int):
            super().__init__()
            self.norms = layers.ModuleList(layers.LayerNorm(WIDTH, 1e-5) for _ in range(2))
            self.qkv = linear(first, first + 1, first + 2)
            self.out, self.up, self.down = (linear(first + number) for number in (3, 4, 5))

        def forward(self, x: Any) -> Any:
            n, tokens, _ = x.shape
            heads = self.qkv(self.norms[0](x)).view(n, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            y = functional.scaled_dot_product_attention(*heads)
            x = x + self.out(y.transpose(1, 2).reshape(n, tokens, WIDTH))
            y = functional.gelu(self.up(self.norms[1](x)), approximate="tanh")
            return x + self.down(y)

    class Net(layers.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = linear(0), linear(1 + 6 * DEPTH)
            self.places = layers.Parameter(torch.tensor(weights["embedding"]))
            self.blocks = layers.Sequential(*(Block(1 + 6 * number) for number in range(DEPTH)))
            self.norm = layers.LayerNorm(WIDTH, 1e-5)

        def forward(self, x: Any) -> Any:
            n, channels, height, width = x.shape
            x = x.view(n, channels, height // PATCH, PATCH, width // PATCH, PATCH)
            x = x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, PATCH * PATCH * channels)
            x = functional.pad(self.embed(x), (0, 0, 1, 0)) + self.places
            return self.head(self.norm(self.blocks(x)[:, 0]))

    return Net()


def torch(name: str, batch: int, dtype: str = "float32", *, channels_last: bool) -> Step:
    """Make a plain eager step of a torch network, in either memory format.

    In a dtype of 16 bits it computes as torch's autocast does, with float32 parameters.
    """
    torch = importlib.import_module("torch")
    net = torch_transformer() if name == "vit" else torch_convolutions(name)
    layout = torch.channels_last if channels_last and name != "vit" else torch.contiguous_format
    net = net.to(memory_format=layout)
    given = [
        (
            torch.tensor(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=layout),
            torch.tensor(labels, dtype=torch.long),
        )
        for images, labels in batches(batch)
    ]
    sgd = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)

    def step(number: int) -> float:
        images, labels = given[number % BATCHES]
        sgd.zero_grad(set_to_none=True)
        with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
            logits = net(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        sgd.step()
        return float(loss.detach())

    return step


STEPS: dict[str, Callable[[str, int, str], Step]] = {
    "normlab": normlab,
    "flax": flax,
    "torch, channels last": partial(torch, channels_last=True),
    "torch, contiguous": partial(torch, channels_last=False),
}


def serve(peer: str, name: str, batch: int, dtype: str = "float32") -> None:
    """Answer as the module says, until the input ends."""
    if peer == "normlab":
        prepare()
    step = STEPS[peer](name, batch, dtype)
    print(json.dumps([step(number) for number in range(CHECKED)]), flush=True)
    number = CHECKED
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            step(number)
            number += 1
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
