"""Four networks with torchvision's structure and names, small, in NNX."""

import jax
import jax.numpy as jnp
from flax import nnx


def conv(before, after, size, stride=1, groups=1, bias=False, *, rngs):
    pad = 0 if size == stride else (size - 1) // 2
    return nnx.Conv(
        before,
        after,
        (size, size),
        stride,
        padding=pad,
        feature_group_count=groups,
        use_bias=bias,
        rngs=rngs,
    )


def batch_norm(features, rngs):
    return nnx.BatchNorm(features, momentum=0.9, use_running_average=True, rngs=rngs)


class BasicBlock(nnx.Module):
    def __init__(self, before, after, stride, rngs):
        self.conv1 = conv(before, after, 3, stride, rngs=rngs)
        self.bn1 = batch_norm(after, rngs)
        self.conv2 = conv(after, after, 3, rngs=rngs)
        self.bn2 = batch_norm(after, rngs)
        projection = [nnx.Conv(before, after, (1, 1), stride, use_bias=False, rngs=rngs)]
        projection.append(batch_norm(after, rngs))
        self.downsample = nnx.List(projection if stride > 1 or before != after else [])

    def __call__(self, x):
        y = self.bn2(self.conv2(nnx.relu(self.bn1(self.conv1(x)))))
        for part in self.downsample:
            x = part(x)
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """Torchvision's has a width of 64."""

    def __init__(self, rngs, width=64):
        self.conv1 = conv(3, width, 7, 2, rngs=rngs)
        self.bn1 = batch_norm(width, rngs)
        before = width
        for i, after in enumerate((width, 2 * width, 4 * width, 8 * width)):
            block = BasicBlock(before, after, 1 if i == 0 else 2, rngs)
            setattr(self, f"layer{i + 1}", nnx.List([block]))
            before = after
        self.fc = nnx.Linear(8 * width, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in blocks:
                x = block(x)
        return self.fc(x.mean((1, 2)))


class CNBlock(nnx.Module):
    def __init__(self, width, rngs):
        self.block = nnx.List(
            [
                conv(width, width, 7, groups=width, bias=True, rngs=rngs),
                jnp.transpose,
                nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs),
                nnx.Linear(width, 4 * width, rngs=rngs),
                nnx.gelu,
                nnx.Linear(4 * width, width, rngs=rngs),
            ]
        )
        self.layer_scale = nnx.Param(jnp.full((width,), 1e-6))

    def __call__(self, x):
        y = self.block[2](self.block[0](x))
        y = self.block[5](jax.nn.gelu(self.block[3](y), approximate=False))
        return x + y * self.layer_scale[...].reshape(1, 1, 1, -1)


class ConvNeXt(nnx.Module):
    def __init__(self, rngs):
        self.features = nnx.List(
            [
                nnx.List([conv(3, 16, 4, 4, bias=True, rngs=rngs), layer_norm(16, rngs)]),
                nnx.List([CNBlock(16, rngs), CNBlock(16, rngs)]),
                nnx.List([layer_norm(16, rngs), conv(16, 32, 2, 2, bias=True, rngs=rngs)]),
                nnx.List([CNBlock(32, rngs)]),
            ]
        )
        self.classifier = nnx.List([layer_norm(32, rngs), nnx.relu, nnx.Linear(32, 5, rngs=rngs)])

    def __call__(self, x):
        for stage in self.features:
            for part in stage:
                x = part(x)
        return self.classifier[2](self.classifier[0](x.mean((1, 2))))


def layer_norm(features, rngs):
    return nnx.LayerNorm(features, epsilon=1e-6, rngs=rngs)


class InvertedResidual(nnx.Module):
    def __init__(self, before, after, stride, expand, rngs):
        hidden = before * expand

        def step(before, after, size, stride=1, groups=1):
            made = conv(before, after, size, stride, groups, rngs=rngs)
            return nnx.List([made, batch_norm(after, rngs)])

        wide = [step(before, hidden, 1)] if expand > 1 else []
        self.conv = nnx.List(
            [
                *wide,
                step(hidden, hidden, 3, stride, hidden),
                nnx.Conv(hidden, after, (1, 1), use_bias=False, rngs=rngs),
                batch_norm(after, rngs),
            ]
        )
        self.residual = stride == 1 and before == after

    def __call__(self, x):
        *steps, last, norm = self.conv
        y = x
        for made, normalised in steps:
            y = jnp.clip(normalised(made(y)), 0, 6)
        y = norm(last(y))
        return x + y if self.residual else y


class MobileNetV2(nnx.Module):
    def __init__(self, rngs):
        def step(before, after, size, stride=1):
            made = conv(before, after, size, stride, rngs=rngs)
            return nnx.List([made, batch_norm(after, rngs)])

        self.features = nnx.List(
            [
                step(3, 32, 3, 2),
                InvertedResidual(32, 16, 1, 1, rngs),
                InvertedResidual(16, 24, 2, 6, rngs),
                InvertedResidual(24, 24, 1, 6, rngs),
                step(24, 1280, 1),
            ]
        )
        self.classifier = nnx.List([nnx.relu, nnx.Linear(1280, 5, rngs=rngs)])

    def __call__(self, x):
        for part in self.features:
            step = isinstance(part, nnx.List)
            x = jnp.clip(part[1](part[0](x)), 0, 6) if step else part(x)
        return self.classifier[1](x.mean((1, 2)))


class EncoderBlock(nnx.Module):
    """Its attention has three layers for queries, keys and values; torchvision's has one."""

    def __init__(self, rngs):
        self.ln_1 = layer_norm(16, rngs)
        self.self_attention = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.ln_2 = layer_norm(16, rngs)
        hidden, out = nnx.Linear(16, 32, rngs=rngs), nnx.Linear(32, 16, rngs=rngs)
        self.mlp = nnx.List([hidden, nnx.gelu, nnx.relu, out])

    def __call__(self, x):
        x = x + self.self_attention(self.ln_1(x))
        y = jax.nn.gelu(self.mlp[0](self.ln_2(x)), approximate=False)
        return x + self.mlp[3](y)


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.pos_embedding = nnx.Param(jnp.zeros((1, 17, 16)))
        self.layers = nnx.Dict(
            {f"encoder_layer_{i}": EncoderBlock(rngs) for i in range(2)},
        )
        self.ln = layer_norm(16, rngs)

    def __call__(self, x):
        x = x + self.pos_embedding
        for i in range(2):
            x = self.layers[f"encoder_layer_{i}"](x)
        return self.ln(x)


class ViT(nnx.Module):
    def __init__(self, rngs):
        self.class_token = nnx.Param(jnp.zeros((1, 1, 16)))
        self.conv_proj = conv(3, 16, 8, 8, bias=True, rngs=rngs)
        self.encoder = Encoder(rngs)
        self.heads = nnx.Dict({"head": nnx.Linear(16, 5, rngs=rngs)})

    def __call__(self, x):
        x = self.conv_proj(x)
        x = x.reshape(x.shape[0], -1, 16)
        token = jnp.broadcast_to(self.class_token[...], (x.shape[0], 1, 16))
        return self.heads["head"](self.encoder(jnp.concatenate([token, x], axis=1))[:, 0])


NETWORKS = {"resnet": ResNet, "convnext": ConvNeXt, "mobilenet": MobileNetV2, "vit": ViT}
