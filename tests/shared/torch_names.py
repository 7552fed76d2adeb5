"""The state dicts that torchvision's networks have, small: names, order and shapes."""

import numpy as np


def _conv(name, before, after, size, bias=False):
    yield f"{name}.weight", (after, before, size, size)
    if bias:
        yield f"{name}.bias", (after,)


def _linear(name, before, after):
    yield f"{name}.weight", (after, before)
    yield f"{name}.bias", (after,)


def _norm(name, features):
    yield f"{name}.weight", (features,)
    yield f"{name}.bias", (features,)


def _batch_norm(name, features):
    yield from _norm(name, features)
    yield f"{name}.running_mean", (features,)
    yield f"{name}.running_var", (features,)
    yield f"{name}.num_batches_tracked", ()


def resnet(width=64):
    """ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5), whose width is 64."""
    yield from _conv("conv1", 3, width, 7)
    yield from _batch_norm("bn1", width)
    before = width
    for i, after in enumerate((width, 2 * width, 4 * width, 8 * width)):
        block = f"layer{i + 1}.0"
        for j, channels in ((1, before), (2, after)):
            yield from _conv(f"{block}.conv{j}", channels, after, 3)
            yield from _batch_norm(f"{block}.bn{j}", after)
        if before != after:
            yield from _conv(f"{block}.downsample.0", before, after, 1)
            yield from _batch_norm(f"{block}.downsample.1", after)
        before = after
    yield from _linear("fc", 8 * width, 5)


def convnext():
    """ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)], num_classes=5)."""
    yield from _conv("features.0.0", 3, 16, 4, bias=True)
    yield from _norm("features.0.1", 16)
    yield from _cn_block("features.1.0", 16)
    yield from _cn_block("features.1.1", 16)
    yield from _norm("features.2.0", 16)
    yield from _conv("features.2.1", 16, 32, 2, bias=True)
    yield from _cn_block("features.3.0", 32)
    yield from _norm("classifier.0", 32)
    yield from _linear("classifier.2", 32, 5)


def _cn_block(name, width):
    yield f"{name}.layer_scale", (width, 1, 1)
    yield from _conv(f"{name}.block.0", 1, width, 7, bias=True)
    yield from _norm(f"{name}.block.2", width)
    yield from _linear(f"{name}.block.3", width, 4 * width)
    yield from _linear(f"{name}.block.5", 4 * width, width)


def mobilenet():
    """MobileNetV2(num_classes=5, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]])."""
    yield from _step("features.0", 3, 32, 3)
    for i, (before, after, expand) in enumerate(((32, 16, 1), (16, 24, 6), (24, 24, 6))):
        block, hidden, at = f"features.{i + 1}.conv", before * expand, 0
        if expand > 1:
            yield from _step(f"{block}.0", before, hidden, 1)
            at = 1
        yield from _step(f"{block}.{at}", 1, hidden, 3)
        yield from _conv(f"{block}.{at + 1}", hidden, after, 1)
        yield from _batch_norm(f"{block}.{at + 2}", after)
    yield from _step("features.4", 24, 1280, 1)
    yield from _linear("classifier.1", 1280, 5)


def _step(name, before, after, size):
    yield from _conv(f"{name}.0", before, after, size)
    yield from _batch_norm(f"{name}.1", after)


def vit():
    """VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)."""
    yield "class_token", (1, 1, 16)
    yield from _conv("conv_proj", 3, 16, 8, bias=True)
    yield "encoder.pos_embedding", (1, 17, 16)
    for i in range(2):
        layer = f"encoder.layers.encoder_layer_{i}"
        yield from _norm(f"{layer}.ln_1", 16)
        yield f"{layer}.self_attention.in_proj_weight", (48, 16)
        yield f"{layer}.self_attention.in_proj_bias", (48,)
        yield from _linear(f"{layer}.self_attention.out_proj", 16, 16)
        yield from _norm(f"{layer}.ln_2", 16)
        yield from _linear(f"{layer}.mlp.0", 16, 32)
        yield from _linear(f"{layer}.mlp.3", 32, 16)
    yield from _norm("encoder.ln", 16)
    yield from _linear("heads.head", 16, 5)


SHAPES = {"resnet": resnet, "convnext": convnext, "mobilenet": mobilenet, "vit": vit}


def filled(name, **given):
    """A state dict with numbers that are unlike those of a start; variances are positive."""
    rng = np.random.default_rng(0)

    def values(key, shape):
        if key.endswith("num_batches_tracked"):
            return np.array(7)
        level, spread = (1.0, 0.3) if len(shape) == 1 else (0.0, 0.15)
        return (level + spread * rng.uniform(-1, 1, shape)).astype(np.float32)

    return {key: values(key, shape) for key, shape in SHAPES[name](**given)}
