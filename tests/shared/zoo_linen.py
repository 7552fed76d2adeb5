"""Four networks with torchvision's structure and names, small, in linen."""

import flax.linen as nn
import jax.numpy as jnp


def conv(features, size, stride=1, groups=1, bias=False, name=None):
    pad = 0 if size == stride else (size - 1) // 2
    return nn.Conv(
        features,
        (size, size),
        stride,
        pad,
        feature_group_count=groups,
        use_bias=bias,
        name=name,
    )


def batch_norm(name):
    return nn.BatchNorm(use_running_average=True, momentum=0.9, name=name)


def layer_norm(name):
    return nn.LayerNorm(epsilon=1e-6, name=name)


def gelu(x):
    return nn.gelu(x, approximate=False)


class Parts(nn.Module):
    """Convolution and norm as members of one list."""

    features: int
    size: int
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        return batch_norm("1")(
            conv(self.features, self.size, self.stride, self.groups, name="0")(x)
        )


class BasicBlock(nn.Module):
    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(batch_norm("bn1")(conv(self.features, 3, self.stride, name="conv1")(x)))
        y = batch_norm("bn2")(conv(self.features, 3, name="conv2")(y))
        if self.stride > 1:
            x = Parts(self.features, 1, self.stride, name="downsample")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    width: int = 64

    @nn.compact
    def __call__(self, x):
        x = nn.relu(batch_norm("bn1")(conv(self.width, 7, 2, name="conv1")(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i in range(4):
            x = BasicBlock(self.width * 2**i, 1 if i == 0 else 2, name=f"layer{i + 1}_0")(x)
        return nn.Dense(5, name="fc")(x.mean((1, 2)))


class CNBlock(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        y = conv(self.width, 7, groups=self.width, bias=True, name="block_0")(x)
        y = gelu(nn.Dense(4 * self.width, name="block_3")(layer_norm("block_2")(y)))
        y = nn.Dense(self.width, name="block_5")(y)
        scale = self.param("layer_scale", nn.initializers.constant(1e-6), (self.width,))
        return x + y * scale.reshape(1, 1, 1, -1)


class ConvNeXt(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = conv(16, 4, 4, bias=True, name="features_0_0")(x)
        x = layer_norm("features_0_1")(x)
        x = CNBlock(16, name="features_1_1")(CNBlock(16, name="features_1_0")(x))
        x = conv(32, 2, 2, bias=True, name="features_2_1")(layer_norm("features_2_0")(x))
        x = CNBlock(32, name="features_3_0")(x)
        x = layer_norm("classifier_0")(x.mean((1, 2)))
        return nn.Dense(5, name="classifier_2")(x)


class InvertedResidual(nn.Module):
    features: int
    stride: int
    expand: int

    @nn.compact
    def __call__(self, x):
        y, hidden, at = x, x.shape[-1] * self.expand, 0
        if self.expand > 1:
            y, at = jnp.clip(Parts(hidden, 1, name="conv_0")(y), 0, 6), 1
        y = jnp.clip(Parts(hidden, 3, self.stride, hidden, name=f"conv_{at}")(y), 0, 6)
        y = conv(self.features, 1, name=f"conv_{at + 1}")(y)
        y = batch_norm(f"conv_{at + 2}")(y)
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.clip(Parts(32, 3, 2, name="features_0")(x), 0, 6)
        for i, block in enumerate(((16, 1, 1), (24, 2, 6), (24, 1, 6))):
            x = InvertedResidual(*block, name=f"features_{i + 1}")(x)
        x = jnp.clip(Parts(1280, 1, name="features_4")(x), 0, 6)
        return nn.Dense(5, name="classifier_1")(x.mean((1, 2)))


class EncoderBlock(nn.Module):
    """Its attention has three layers for queries, keys and values; torchvision's has one."""

    @nn.compact
    def __call__(self, x):
        y = layer_norm("ln_1")(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="self_attention")(y)
        y = gelu(nn.Dense(32, name="mlp_0")(layer_norm("ln_2")(x)))
        return x + nn.Dense(16, name="mlp_3")(y)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x + self.param("pos_embedding", nn.initializers.zeros, (1, 17, 16))
        for i in range(2):
            x = EncoderBlock(name=f"layers_encoder_layer_{i}")(x)
        return layer_norm("ln")(x)


class ViT(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = conv(16, 8, 8, bias=True, name="conv_proj")(x)
        x = x.reshape(x.shape[0], -1, 16)
        token = self.param("class_token", nn.initializers.zeros, (1, 1, 16))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 16)), x], axis=1)
        return nn.Dense(5, name="heads_head")(Encoder(name="encoder")(x)[:, 0])


NETWORKS = {"resnet": ResNet, "convnext": ConvNeXt, "mobilenet": MobileNetV2, "vit": ViT}
