# %% [markdown]
# # A normaliser in ten minutes
#
# This notebook shows what batch, layer, group, instance and root-mean-square normalisation do to
# numbers and to gradients, where the pitfalls are, and how to swap one for another. It takes less
# than a minute on two cores and downloads nothing.

# %%
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

import normlab
from normlab import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    layer_norm_image,
    rms_norm,
)
from normlab.data import Shapes
from normlab.models.plain import Convnet
from normlab.norms import BatchNorm, GroupNorm, Identity, LayerNorm

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe & Ito
GREY, PALE = "#6F6F6F", "#E6E6E6"
np.set_printoptions(precision=2, suppress=True)
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)

# %% [markdown]
# ## One equation
#
# A normaliser takes a set of numbers, subtracts their mean and divides by their deviation:
#
#     y = (x - mean(x)) / sqrt(var(x) + eps)
#
# Normalisers differ in which numbers make up a set. `rms_norm` also differs in the formula: it
# subtracts nothing and divides by the root of the mean square. All are functions from arrays to
# arrays, with channels last.

# %%
x = jnp.array([[1.0, 2.0, 6.0], [3.0, 4.0, 5.0]])  # two examples, three channels
print("batch_norm: each column for itself\n", np.asarray(batch_norm(x)))
print("layer_norm: each row for itself\n", np.asarray(layer_norm(x)))
print("rms_norm: each row, and no mean subtracted\n", np.asarray(rms_norm(x)))

# %% [markdown]
# ## Who shares statistics with whom
#
# Images have `N` examples, `H x W` positions and `C` channels. We can check the sets ourselves: an
# output depends only on the inputs with which it shares statistics, so its gradient is zero
# everywhere else. Each block shows where the gradient of the vermilion cell's output is not zero.

# %%
normalisers = {
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "layer_norm_image": layer_norm_image,
    "group_norm, 2 groups": partial(group_norm, groups=2),
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
}
N, H, W, C = 4, 2, 2, 6
block = jax.random.normal(jax.random.key(0), (N, H, W, C))


def shares_with_last(norm):
    """True for each cell that the last output depends on, as (N, C, HW)."""
    gradient = jax.grad(lambda x: norm(x)[-1, -1, -1, -1])(block)
    return np.moveaxis(np.asarray(gradient != 0).reshape(N, H * W, C), 1, 2)


shared = {name: shares_with_last(norm) for name, norm in normalisers.items()}
for name, cells in shared.items():
    print(f"{name:22}{cells.sum():3} of {cells.size} cells share, {cells.size // cells.sum()} sets")

# %%
AXES = {"N": np.array([-0.87, -0.5]), "C": np.array([0.87, -0.5]), "HW": np.array([0.0, 1.0])}


def draw_block(ax, cells):
    """The block from outside; the cell in question is the corner nearest to us."""
    sizes = dict(zip(AXES, cells.shape, strict=True))
    for normal, light in (("HW", 1.0), ("N", 0.93), ("C", 0.85)):
        across, down = (name for name in AXES if name != normal)
        for i, j in np.ndindex(sizes[across], sizes[down]):
            index = {normal: sizes[normal] - 1, across: i, down: j}
            where = tuple(index[name] for name in AXES)
            last = where == tuple(n - 1 for n in cells.shape)
            colour = VERMILION if last else BLUE if cells[where] else PALE
            origin = AXES[normal] * sizes[normal] + AXES[across] * i + AXES[down] * j
            corners = np.array([0 * AXES[across], AXES[across], AXES[across] + AXES[down]])
            square = origin + np.vstack([corners, AXES[down]])
            shade = light * np.array(plt.matplotlib.colors.to_rgb(colour))
            ax.add_collection(PolyCollection([square], facecolor=shade, edgecolor="white", lw=0.8))
    n, c, hw = (AXES[name] * sizes[name] for name in AXES)
    beside = {
        "N": c + n / 2 + (0.4, -0.6),
        "C": n + c / 2 - (0.4, 0.6),
        "HW": n + hw / 2 - (0.7, 0),
    }
    for name, (right, up) in beside.items():
        ax.text(right, up, name, color=GREY, ha="center", va="center")
    ax.set(xlim=(-4.8, 5.6), ylim=(-5.3, 4.6), aspect="equal")
    ax.axis("off")


figure, grid = plt.subplots(2, 3, figsize=(8, 6), layout="constrained")
for ax, (name, cells) in zip(grid.flat, shared.items(), strict=True):
    draw_block(ax, cells)
    ax.set_title(name)
figure.legend(
    handles=[
        Patch(color=VERMILION, label="this cell"),
        Patch(color=BLUE, label="shares its statistics"),
        Patch(color=PALE, label="does not"),
    ],
    loc="outside lower center",
    ncols=3,
)
plt.show()

# %% [markdown]
# The literature uses the name "layer normalisation" for two functions: over the channels of one
# position (`layer_norm`) and over a whole example (`layer_norm_image`). Only with `batch_norm`
# does an example's output depend on other examples.

# %% [markdown]
# ## Real activations
#
# We send 64 images of normlab's own `Shapes`, whose light differs from image to image, through a
# random convolution with 8 channels.

# %%
shapes = Shapes(train_examples=2000, test_examples=10, size=16).load()
images = jnp.asarray(shapes.train.images, jnp.float32) / 255
kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 8)) * np.sqrt(2 / 27)  # He et al. 2015


@jax.jit
def convolve(images, kernel):
    """A 3x3 convolution: (N, H, W, 3) to (N, H - 2, W - 2, 8)."""
    return jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


activations = convolve(images[:64], kernel)
outputs = {
    "before": activations,
    "batch_norm": batch_norm(activations),
    "layer_norm": layer_norm(activations),
    "group_norm, 2 groups": group_norm(activations, groups=2),
    "instance_norm": instance_norm(activations),
}


def draw_density(ax, values, colour):
    """The distribution of some values, as a line."""
    heights, edges = np.histogram(values, bins=32, range=(-4, 4), density=True)
    ax.plot((edges[1:] + edges[:-1]) / 2, heights, color=colour, lw=1, alpha=0.75)


figure, grid = plt.subplots(2, 5, figsize=(10, 4), sharex=True, sharey="row", layout="constrained")
for column, (name, y) in zip(grid.T, outputs.items(), strict=True):
    y = np.asarray(y)
    for unit in range(8):
        draw_density(column[0], y[..., unit].ravel(), BLUE)
        draw_density(column[1], y[unit].ravel(), ORANGE)
    column[0].set_title(name)
    column[1].set(xlabel="activation", xticks=(-4, -2, 0, 2, 4))
grid[0, 0].set_ylabel("density, one line\na channel (all 8)")
grid[1, 0].set_ylabel("density, one line\nan example (8 of 64)")
plt.show()

# %%
print(f"{'from least to most':22}{'channel means':>16}{'deviations':>15}", end="")
print(f"{'example means':>18}{'deviations':>15}")
for name, y in outputs.items():
    y = np.asarray(y)
    found = (y.mean((0, 1, 2)), y.std((0, 1, 2)), y.mean((1, 2, 3)), y.std((1, 2, 3)))
    print(f"{name:22}", *(f"{v.min():z7.2f} to {v.max():z4.2f}" for v in found))

# %% [markdown]
# After `batch_norm` all channels have mean 0 and deviation 1 (blue), and examples still differ
# (orange). After `layer_norm` and `group_norm` it is the other way round: every example has mean 0
# and deviation 1, and channels differ. After `instance_norm` neither differs: means and deviations
# no longer show the light of an image.

# %% [markdown]
# ## Gradients
#
# A normaliser removes the same directions from the gradient as from the input. Shifting or scaling
# a set does not change the output, so the gradient with respect to the input has no component in
# these two directions: on each set it is orthogonal to the constant and to the normalised output.
# We pull a random gradient back and measure the largest cosine. (We use a tiny eps, because for the
# second direction the statement is exact only as eps goes to 0.)

# %%
pushed = jax.random.normal(jax.random.key(2), activations.shape)


def cosine(a, b, axes):
    """The largest cosine, in size, between `a` and `b` on any of the sets."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.sqrt((a**2).sum(axes) * (b**2).sum(axes))
    return abs((a * b).sum(axes) / lengths).max()


print(f"{'largest cosine with':20}{'the constant':>16}{'the output':>16}")
for norm, axes in (
    (batch_norm, (0, 1, 2)),
    (instance_norm, (1, 2)),
    (layer_norm, 3),
    (rms_norm, 3),
):
    y, pull = jax.vjp(partial(norm, eps=1e-12), activations)
    (gradient,) = pull(pushed)
    to_constant = cosine(gradient, np.ones(y.shape), axes)
    print(f"{norm.__name__:20}{to_constant:16.1e}{cosine(gradient, y, axes):16.1e}")

# %% [markdown]
# `rms_norm` does not remove the mean, so its gradient has a constant component.
#
# This matters for two reasons. First, a bias before `batch_norm` is a constant for a channel, so
# its gradient is only rounding. normlab's networks omit such a bias.


# %%
def loss_of_bias(bias):
    """Any loss will do; this one is linear in the output."""
    return (batch_norm(activations + bias) * pushed).sum()


_, pull = jax.vjp(batch_norm, activations)
added = np.abs(pull(pushed)[0]).sum(axis=(0, 1, 2))
bias_gradient = np.abs(jax.grad(loss_of_bias)(jnp.zeros(8)))
print(f"the gradient of the bias: {bias_gradient.max():.0e} at most, the sum over each channel of")
print(f"gradients of activations whose sizes add up to {added.min():.0f} at least")

# %% [markdown]
# Second, the output does not depend on the scale of the weights before the normaliser. If the
# weights are twice as large, the gradient is therefore half as large.

# %%
scales = np.logspace(-4, 2, 25)


def loss(kernel, norm):
    """Linear in what the normaliser returns, so that its own gradient there does not change."""
    return (norm(convolve(images[:64], kernel)) * pushed).mean()


def gradient_norm(norm, scale):
    """The norm of the loss's gradient with respect to the kernel, at a multiple of the kernel."""
    return jnp.linalg.norm(jax.grad(loss)(scale * kernel, norm).ravel())


figure, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for name, norm, colour, place in (
    ("no normaliser", lambda y: y, GREY, "center"),
    ("batch_norm", batch_norm, BLUE, "top"),
    ("layer_norm", layer_norm, VERMILION, "bottom"),
):
    norms = jax.jit(jax.vmap(partial(gradient_norm, norm)))(jnp.asarray(scales, jnp.float32))
    ax.loglog(scales, norms, color=colour, lw=2)
    ax.text(scales[-1] * 1.3, norms[-1], name, color=colour, va=place)
    if norm is batch_norm:
        ratio = norms[-5] / norms[-1]
        print(f"batch_norm: weights 10 times as large, gradient {ratio:.1f} times smaller")
ax.set(xlabel="factor on the weights before the normaliser", ylabel="norm of their gradient")
plt.show()

# %% [markdown]
# Without a normaliser the gradient of this loss does not change. With one, it falls as one over the
# scale. On the left the variance is as small as eps, which then dominates.
#
# For the same reason the gradient is orthogonal to the weights (apart from eps). By Pythagoras a
# plain step of gradient descent therefore makes them longer, and the longer they are, the less a
# step rotates them.

# %%
print("length   cosine with gradient   length after a step   turned by")
for scale in (1, 2, 4):
    old = scale * kernel.ravel()
    gradient = jax.grad(loss)(scale * kernel, batch_norm).ravel()
    new = old - 50 * gradient
    length, longer = jnp.linalg.norm(old), jnp.linalg.norm(new)
    turned = 2 * jnp.arcsin(jnp.linalg.norm(new / longer - old / length) / 2)
    aligned = cosine(old, gradient, 0)
    print(f"{length:7.4f}{aligned:22.0e}{longer:22.4f}{jnp.degrees(turned):10.2f} degrees")

# %% [markdown]
# Twice the length means a quarter of the rotation: the gradient is half as long, and a step of a
# given length rotates the weights by half the angle. Growing weights therefore act like a falling
# learning rate. Weight decay counteracts this.

# %%
slope = jax.jit(jax.grad(partial(loss, norm=batch_norm)))
for decay in (0.0, 0.01):
    trained = kernel
    for _ in range(200):
        trained = (1 - decay) * trained - 50 * slope(trained)
    print(f"decay {decay:4}: length after 200 steps {jnp.linalg.norm(trained.ravel()):.2f}")

# %% [markdown]
# ## Pitfalls of conventions
#
# Libraries silently differ in three conventions. `eps` matters for small inputs. Dividing by `n` or
# by `n - 1` matters for small batches. `momentum` is the weight of the old value in some libraries,
# and of the new value in others. In normlab `eps` is 1e-5, the divisor is `n`, and `momentum` is
# the weight of the old value.

# %%
small = 1e-3 * jax.random.normal(jax.random.key(3), (16, 256))
for eps in (1e-5, 1e-6, 1e-12):
    deviation = layer_norm(small, eps=eps).std()
    print(f"inputs of deviation 1e-3, eps {eps:.0e}: outputs of deviation {deviation:.2f}")

pair = jnp.array([[1.0], [3.0]])  # mean 2, variance 1 or, divided by n - 1, 2
print("\nrunning statistics after one batch with the values 1 and 3:")
for settings in (
    {"momentum": 0.9},
    {"momentum": 0.1},
    {"momentum": 0.9, "unbiased_running_variance": True},
):
    norm = BatchNorm(**settings)
    params, state = norm.init(features=1)
    _, state = norm.apply(params, state, pair, train=True)
    print(f"mean 0 -> {state['mean'][0]:.1f}, variance 1 -> {state['variance'][0]:.1f} {settings}")

# %% [markdown]
# torch writes the first as `momentum=0.1`, and stores the unbiased running variance of the third.
#
# The formula has a pitfall too. In exact arithmetic, the variance is the mean of the squares minus
# the square of the mean, which needs only one pass. In float32, at mean 1e4 and deviation 1e-2, the
# squares are near 1e8, where neighbouring floats are 8 apart, but the variance is 1e-4.

# %%
far = (1e4 + 1e-2 * np.random.default_rng(0).standard_normal((512, 6))).astype(np.float32)
truth = far.astype(np.float64)
truth = (truth - truth.mean(0)) / np.sqrt(truth.var(0) + 1e-5)


def one_pass(x):
    """What not to do."""
    mean, mean_of_squares = x.mean(0), (x**2).mean(0)
    variance = mean_of_squares - mean**2
    return variance, (x - mean) * jax.lax.rsqrt(variance + 1e-5)


variance, y = one_pass(jnp.asarray(far))
errors = {"one pass": np.abs(y - truth).max(0)}
errors["normlab"] = np.abs(batch_norm(jnp.asarray(far)) - truth).max(0)
print("six channels")
print("variance, float64: ", *(f"{v:9.1e}" for v in far.astype(np.float64).var(0)))
print("variance, one pass:", *(f"{v:9.1e}" for v in variance))
for name, largest in errors.items():
    print(f"{'error, ' + name + ':':19}", *(f"{v:9.1e}" for v in largest))

# %% [markdown]
# ## Training and evaluation
#
# In training, `batch_norm` uses the statistics of the batch. An evaluation should not depend on the
# other examples in the batch, so it uses running statistics. These are a state. `BatchNorm` is a
# description with two pure functions: `init` makes parameters and state, and `apply` returns the
# output and the next state. Every normaliser has these two functions; most have an empty state.

# %%
population = convolve(images, kernel)
mean, deviation = population.mean((0, 1, 2)), population.std((0, 1, 2))
draws = np.random.default_rng(0).integers(len(images), size=(600, 32))


def distance(state):
    """How far the running means are from the true ones: the root mean square over channels."""
    return float(jnp.sqrt(jnp.mean(((state["mean"] - mean) / deviation) ** 2)))


figure, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for momentum, colour in ((0.9, BLUE), (0.98, VERMILION)):
    norm = BatchNorm(momentum=momentum)
    params, state = norm.init(features=8)
    train = jax.jit(partial(norm.apply, train=True))
    distances = [distance(state)]
    for batch in draws:
        _, state = train(params, state, population[batch])
        distances.append(distance(state))
    ax.semilogy(distances, color=colour, lw=1.2, label=f"momentum {momentum}")
    forgotten = momentum ** np.arange(601)
    shown = forgotten > 0.01
    ax.semilogy(distances[0] * forgotten[shown], "--", color=colour, lw=1)
    print(f"momentum {momentum}: {np.mean(distances[300:]):.3f} over the last 300 batches")
ax.plot([], [], "--", color=GREY, lw=1, label="what is left of the start")
ax.set(
    xlabel="batches of 32 seen",
    ylabel="distance of running means from true\nones, in deviations of the channel",
)
ax.legend()
plt.show()

# %% [markdown]
# The influence of the initial value decays as `momentum ** steps`, and then the noise of the
# batches remains. A larger momentum averages over more batches: it is slower, but closer in the
# end.

# %%
batch = population[:32]
apart = {
    train: norm.apply(params, state, batch, train=train)[0][:1]
    - norm.apply(params, state, batch[:1], train=train)[0]
    for train in (True, False)
}
print("one image, in a batch of 32 less alone, the largest difference:")
print(f"   training   {np.abs(apart[True]).max():.2f}")
print(f"   evaluation {np.abs(apart[False]).max():.2f}")

# %% [markdown]
# ## A batch of two
#
# The smaller the batch, the more an output depends on the other examples. Two vectors are the
# extreme case: one is above the mean and one below, so only the sign remains, and almost no
# gradient passes. A single example is refused.

# %%
two = jnp.array([[0.3, 5.0, -2.0], [0.1, 9.0, 7.0]])
print(np.asarray(batch_norm(two)))
gradient = jax.grad(lambda x: (batch_norm(x) * jnp.array([[1.0], [2.0]])).sum())(two)
print(f"largest gradient: {np.abs(gradient).max():.0e}")
try:
    batch_norm(two[:1])
except normlab.UserError as error:
    print("one example:", error)

# %%
rng = np.random.default_rng(1)
print("one image among others: deviation of its output over 100 draws of the others")
for size in (2, 4, 8, 16, 32, 64):
    company = np.stack([[0, *rng.integers(1, len(images), size - 1)] for _ in range(100)])
    first = jax.jit(jax.vmap(lambda members: batch_norm(population[members])[0]))(company)
    print(f"   batches of {size:2}: {np.sqrt(first.var(0).mean()):.2f}")

# %% [markdown]
# ## Masks
#
# Sequences of different lengths are padded, and the padding must not count. A mask is True for
# elements that count. Other elements have no influence, even if they are NaN.

# %%
lengths = np.array([3, 7, 5])
mask = jnp.asarray(np.arange(7) < lengths[:, None])[:, :, None]  # (3 sequences, 7 tokens, 1)
tokens = 5 + jax.random.normal(jax.random.key(4), (3, 7, 4))
real = batch_norm(jnp.concatenate([row[:n] for row, n in zip(tokens, lengths, strict=True)]))

for padding in (0.0, 1e6, jnp.nan):
    padded = jnp.where(mask, tokens, padding)
    with_mask, without = batch_norm(padded, mask=mask), batch_norm(padded)
    print(
        f"padding {padding:5g}: off by {np.abs(with_mask[mask[..., 0]] - real).max():.0e} with the "
        f"mask, by {np.abs(without[mask[..., 0]] - real).max():.1f} without"
    )

# %% [markdown]
# ## Swap one for another
#
# normlab's networks have a slot for a normaliser, and the rest of the network does not depend on
# it. These networks have 48 channels to normalise. The normalisers have a scale and a bias for each
# channel (without a normaliser, the convolutions have a bias instead). Batch normalisation also
# has its running mean and variance.

# %%
norms = {
    "none": Identity(),
    "batch": BatchNorm(),
    "layer": LayerNorm(),
    "group": GroupNorm(groups=4),
}
for name, norm in norms.items():
    model = Convnet(norm=norm, classes=10, widths=(16, 32), layers=1)
    init = partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images[:1])
    sizes = {
        part: sum(leaf.size for leaf in jax.tree.leaves(tree)) for part, tree in variables.items()
    }
    print(f"{name:6} numbers in {sizes}")

# %%
data = Shapes(train_examples=1000, test_examples=500, size=12).load()
recipe = normlab.Recipe(epochs=8, batch_size=50, seed=0)
fitted = {}
for name, norm in norms.items():
    model = Convnet(norm=norm, classes=10, widths=(16, 32), layers=1)
    fitted[name] = normlab.fit(model, data, optax.sgd(0.05, momentum=0.9), recipe)
    last = fitted[name].history[-1]
    print(f"{name:6}{fitted[name].status}, test accuracy {last['test_accuracy']:.2f}")

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
colours = dict(zip(norms, (GREY, BLUE, VERMILION, GREEN), strict=True))
for ax, metric in zip(panels, ("train_loss", "test_accuracy"), strict=True):
    for name, run in fitted.items():
        epochs = [row["epoch"] for row in run.history]
        ax.plot(epochs, [row[metric] for row in run.history], color=colours[name], label=name)
    ax.set(xlabel="epoch", title=metric.replace("_", " "))
panels[0].legend()
plt.show()

# %% [markdown]
# One seed cannot show which normaliser is better: with another seed the order may change, and all
# four share a learning rate that was tuned for none of them. The other notebook,
# `from_a_config_to_a_conclusion`, and the files in `configs/` answer such questions.
