"""Networks as other people write them, for the tests of what takes any Flax model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import nnx

ModuleDef = Any


class ResNetBlock(nn.Module):
    """As in Flax's own ImageNet example: layers come as partial classes."""

    filters: int
    conv: ModuleDef
    norm: ModuleDef
    act: Callable
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x):
        residual = x
        y = self.norm()(self.conv(self.filters, (3, 3), self.strides)(x))
        y = self.conv(self.filters, (3, 3))(self.act(y))
        y = self.norm(scale_init=nn.initializers.zeros_init())(y)
        if residual.shape != y.shape:
            residual = self.conv(self.filters, (1, 1), self.strides, name="conv_proj")(residual)
            residual = self.norm(name="norm_proj")(residual)
        return self.act(residual + y)


class ResNet(nn.Module):
    """The structure of Flax's ImageNet example, in small; training is the default of its call."""

    stage_sizes: Sequence[int]
    block_cls: ModuleDef
    num_classes: int
    num_filters: int = 4
    dtype: Any = jnp.float32
    act: Callable = nn.relu
    conv: ModuleDef = nn.Conv

    @nn.compact
    def __call__(self, x, train: bool = True):
        conv = partial(self.conv, use_bias=False, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=self.dtype,
        )
        x = norm(name="bn_init")(conv(self.num_filters, (3, 3), name="conv_init")(x))
        x = nn.relu(x)
        for i, size in enumerate(self.stage_sizes):
            for j in range(size):
                strides = (2, 2) if i > 0 and j == 0 else (1, 1)
                x = self.block_cls(
                    self.num_filters * 2**i, strides=strides, conv=conv, norm=norm, act=self.act
                )(x)
        x = nn.Dense(self.num_classes, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))
        return jnp.asarray(x, self.dtype)


SmallResNet = partial(ResNet, stage_sizes=(1, 1), block_cls=ResNetBlock)


class NnxBlock(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(x + self.dropout(self.norm(self.conv(x))))


class NnxResNet(nnx.Module):
    """As NNX model zoos write it: modes by `.train()` and `.eval()`, blocks in a list."""

    def __init__(
        self, in_channels: int, width: int = 4, num_classes: int = 1000, *, rngs: nnx.Rngs
    ):
        self.stem = nnx.Sequential(
            nnx.Conv(in_channels, width, (3, 3), rngs=rngs), nnx.BatchNorm(width, rngs=rngs)
        )
        self.blocks = nnx.List([NnxBlock(width, rngs=rngs) for _ in range(2)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.fc = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.fc(self.norm(x.mean((1, 2))))


@dataclass(frozen=True)
class Settings:
    """As zoos of models have them; evaluation is the default of the layers."""

    block_layers: list[int]
    num_classes: int
    width: int = 4


class Bottleneck(nnx.Module):
    def __init__(self, inputs: int, width: int, downsample=None, *, rngs: nnx.Rngs):
        conv = partial(nnx.Conv, use_bias=False, rngs=rngs)
        norm = partial(nnx.BatchNorm, use_running_average=True, rngs=rngs)
        self.conv0, self.bn0 = conv(inputs, width, (1, 1), padding=0), norm(width)
        self.conv1, self.bn1 = conv(width, 2 * width, (3, 3), padding=1), norm(2 * width)
        self.downsample = downsample

    def __call__(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        return nnx.relu(shortcut + self.bn1(self.conv1(nnx.relu(self.bn0(self.conv0(x))))))


class SettingsResNet(nnx.Module):
    """A network that is made of one object of settings, with projections on its shortcuts."""

    def __init__(self, cfg: Settings, *, rngs: nnx.Rngs):
        inputs, self.blocks = 3, nnx.List()
        for count in cfg.block_layers:
            for _ in range(count):
                shortcut = None
                if inputs != 2 * cfg.width:
                    norm = nnx.BatchNorm(2 * cfg.width, use_running_average=True, rngs=rngs)
                    conv = nnx.Conv(inputs, 2 * cfg.width, (1, 1), use_bias=False, rngs=rngs)
                    shortcut = nnx.Sequential(conv, norm)
                self.blocks.append(Bottleneck(inputs, cfg.width, shortcut, rngs=rngs))
                inputs = 2 * cfg.width
        self.pool = partial(jnp.mean, axis=(1, 2))
        self.fc = nnx.Linear(inputs, cfg.num_classes, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.fc(self.pool(x))


class Mlp(nn.Module):
    """A network whose modes are words of the call, and whose width may be its output's."""

    features: int = 8
    out: int = 10
    rate: float = 0.5

    @nn.compact
    def __call__(self, x, *, deterministic: bool, use_running_average: bool):
        x = nn.Dense(self.features)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=use_running_average, momentum=0.5)(x)
        x = nn.Dropout(self.rate, deterministic=deterministic)(nn.relu(x))
        return nn.Dense(self.out)(x)
