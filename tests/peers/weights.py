"""Kernels as torch, timm and flax transform them: `goldens/weights.npz`, and what it is made with.

`python -m tests.peers.weights` makes the file anew, where these are installed. Kernels are HWIO
throughout; torch's OIHW is converted here, on the way in and out.
"""

import numpy as np

from tests.peers import goldens

LIBRARIES = ("torch", "timm", "flax")
STEPS, RATE = 4, 0.1


def inputs() -> dict[str, np.ndarray]:
    """A kernel, a gain, directions of training, and what power iteration starts with."""
    noise = np.random.default_rng(0)
    found = {
        "kernel": 0.1 + noise.standard_normal((3, 2, 4, 5)),
        "matrix": 0.1 + noise.standard_normal((6, 5)),
        "gain": noise.uniform(0.5, 2, 5),
        "dy": noise.standard_normal((3, 2, 4, 5)),
        "dy_matrix": noise.standard_normal((6, 5)),
        "u": noise.standard_normal(5),
    }
    found["u"] /= np.linalg.norm(found["u"])
    return {key: value.astype(np.float32) for key, value in found.items()}


def to_torch(kernel):
    """HWIO or IO as torch has it: OIHW or OI."""
    import torch

    return torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)).copy())


def from_torch(kernel):
    """OIHW or OI as HWIO or IO."""
    return np.moveaxis(kernel.detach().numpy(), (0, 1), (-1, -2))


def of_torch_weight_norm(given) -> dict[str, np.ndarray]:
    """The first gain, the kernel with another one, and the gradients of both."""
    import torch
    from torch.nn.utils.parametrizations import weight_norm

    layer = torch.nn.Conv2d(4, 5, (3, 2))
    layer.weight.data = to_torch(given["kernel"])
    weight_norm(layer)
    gain, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    first = gain.detach().numpy().ravel().copy()
    gain.data = torch.tensor(given["gain"]).reshape(5, 1, 1, 1)
    (layer.weight * to_torch(given["dy"])).sum().backward()
    return {
        "weight_norm/first_gain": first,
        "weight_norm/used": from_torch(layer.weight),
        "weight_norm/of_kernel": from_torch(v.grad),
        "weight_norm/of_gain": gain.grad.numpy().ravel(),
    }


def of_torch_spectral_norm(given) -> dict[str, np.ndarray]:
    """Steps of gradient descent, the kernel of each, then evaluation.

    torch's iteration begins with the vector that it calls v, of the axes that are not `dim`. With
    `dim=1` that is the vector of outputs, our u, as in the paper; a convolution has no such choice.
    """
    import torch
    from torch.nn.utils.parametrizations import spectral_norm

    layer = torch.nn.Linear(6, 5, bias=False)
    layer.weight.data = to_torch(given["matrix"])
    spectral_norm(layer, dim=1)
    part = layer.parametrizations.weight[0]
    part._v = torch.tensor(given["u"])
    used = []
    for _ in range(STEPS):
        weight = layer.weight
        layer.zero_grad()
        (weight * to_torch(given["dy_matrix"])).sum().backward()
        used.append(from_torch(weight))
        original = layer.parametrizations.weight.original
        original.data -= RATE * original.grad
    layer.eval()
    used.append(from_torch(layer.weight))
    return {
        "spectral_norm/torch": np.stack(used),
        "spectral_norm/u": part._v.numpy(),
        "spectral_norm/v": part._u.numpy(),
    }


def of_timm(given) -> dict[str, np.ndarray]:
    """timm's kernels, read off what the layers make of unit impulses, and their gradients."""
    import torch
    from timm.layers import ScaledStdConv2d, StdConv2d

    found = {}
    for name, kind, fields in (
        ("standardised", StdConv2d, {}),
        ("scaled", ScaledStdConv2d, {"gamma": 1.5}),
    ):
        layer = kind(4, 5, (3, 2), padding=0, bias=False, **fields)
        layer.weight.data = to_torch(given["kernel"])
        if name == "scaled":
            layer.gain.data = torch.tensor(given["gain"]).reshape(5, 1, 1, 1)
        impulses = torch.eye(24).reshape(24, 4, 3, 2)
        used = layer(impulses)[:, :, 0, 0].T.reshape(5, 4, 3, 2)
        (used * to_torch(given["dy"])).sum().backward()
        found[f"{name}/used"] = from_torch(used)
        found[f"{name}/of_kernel"] = from_torch(layer.weight.grad)
        if name == "scaled":
            found["scaled/of_gain"] = layer.gain.grad.numpy().ravel()
    return found


def of_flax(given) -> dict[str, np.ndarray]:
    """flax's weight norm with the same gain, and its spectral norm over steps of training.

    Read off what a convolution makes of unit impulses, which turns the kernel round.
    """
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Net(nn.Module):
        spectral: bool

        @nn.compact
        def __call__(self, x, update):
            layer = nn.Conv(5, (3, 2), padding="VALID", use_bias=False)
            if self.spectral:
                return nn.SpectralNorm(layer)(x, update_stats=update)
            return nn.WeightNorm(layer)(x)

    impulses = jnp.eye(24).reshape(24, 3, 2, 4)

    def used(net, variables, update=False):
        y, moved = net.apply(variables, impulses, update, mutable=["batch_stats"])
        return y.reshape(3, 2, 4, 5), moved

    net = Net(spectral=False)
    variables = jax.tree.map(lambda x: x, net.init(jax.random.key(0), impulses, False))
    variables["params"]["Conv_0"]["kernel"] = jnp.asarray(given["kernel"])
    ((key, scale),) = variables["params"]["WeightNorm_0"].items()
    variables["params"]["WeightNorm_0"][key] = jnp.asarray(given["gain"]).reshape(scale.shape)
    found = {
        "flax/weight_norm": used(net, variables)[0],
        "flax/first_gain": np.asarray(scale),
    }

    net = Net(spectral=True)
    variables = dict(net.init(jax.random.key(0), impulses, False))
    kernel, stats = jnp.asarray(given["kernel"]), variables["batch_stats"]
    stats = jax.tree.map(lambda leaf: jnp.asarray(given["u"])[None] if leaf.ndim else leaf, stats)
    kernels = []
    for _ in range(STEPS):

        def loss(kernel, stats=stats):
            held = {"params": {"Conv_0": {"kernel": kernel}}, "batch_stats": stats}
            y, moved = used(net, held, update=True)
            return (y * given["dy"]).sum(), (y, moved["batch_stats"])

        gradient, (y, stats) = jax.grad(loss, has_aux=True)(kernel)
        kernel = kernel - RATE * gradient
        kernels.append(y)
    (u,) = (leaf for leaf in jax.tree.leaves(stats) if leaf.ndim)
    return {**found, "flax/spectral_norm": np.stack(kernels), "flax/u": u[0]}


MAKERS = {
    "torch weight_norm": of_torch_weight_norm,
    "torch spectral_norm": of_torch_spectral_norm,
    "timm": of_timm,
    "flax": of_flax,
}


def make() -> dict[str, np.ndarray]:
    """Everything that the file holds."""
    given = inputs()
    found = {key: np.asarray(v) for maker in MAKERS.values() for key, v in maker(given).items()}
    return {**given, **found}


if __name__ == "__main__":
    goldens.save("weights", make(), LIBRARIES)
