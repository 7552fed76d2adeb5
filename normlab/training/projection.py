"""Keeps the norm of weights at what it was at the start, by a projection after every step (NaP).

A network whose weights are unit vectors (nGPT) is brought back to the sphere in the same place.

A weight whose scale a normaliser removes grows in training, and the effective learning rate falls
as the square of its norm rises. With a constant norm the schedule alone sets the effective rate
(Lyle et al. 2024, arXiv:2407.01800, "normalize and project").
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from normlab.core import Array
from normlab.errors import UserError
from normlab.models.sphere import has_spheres, on_sphere
from normlab.training.averaging import has_schedule_free
from normlab.training.heads import outside_head

Projection = Literal["weights", "weights_and_scales", "sphere"]
"""The parameters that keep their norm: the kernels of all layers but the head; these and each
normaliser's scale and bias, which have one norm together; or every unit vector of the layers of
`normlab.models.sphere`."""

SPHERE = "sphere"

KERNEL, SCALES = "kernel", ("scale", "bias")
Path = tuple[str, ...]


class ProjectedState(NamedTuple):
    """The state of an optimiser, and the norms that it keeps.

    Attributes:
        inner: the optimiser's own state.
        norms: the norm of each group of parameters at the start, in the order of `groups_of`; none
            on the sphere, where it is one.
    """

    inner: optax.OptState
    norms: tuple[Array, ...]


def projected(
    optimizer: optax.GradientTransformation,
    which: Projection | None,
) -> optax.GradientTransformation:
    """Project the parameters after every step of an optimiser; None returns it unchanged.

    A group of parameters whose norm is zero at the start, such as a kernel that is initialised by
    zeros, is left alone. The head is not scale-invariant and is left alone too, as in the paper.
    The paper either scales a normaliser's scale and bias together back to their first norm, which
    suits activations that are homogeneous, such as ReLU (`weights_and_scales`), or lets them move
    or decay (`weights`). This is from others' accounts of the paper.

    Raises:
        UserError: the head cannot be told, or the optimiser is schedule-free. Such an optimiser
            keeps a second copy of the parameters, which would not be projected.

    >>> kept = projected(optax.sgd(1.0), "weights")
    >>> params = {"Conv_0": {"kernel": jnp.array([3.0, 4.0])}, "Dense_0": {"kernel": jnp.ones(2)}}
    >>> gradient = {"Conv_0": {"kernel": jnp.array([3.0, -4.0])}, "Dense_0": params["Dense_0"]}
    >>> updates, _ = kept.update(gradient, kept.init(params), params)
    >>> moved = optax.apply_updates(params, updates)
    >>> moved["Conv_0"]["kernel"].tolist(), moved["Dense_0"]["kernel"].tolist()
    ([0.0, 5.0], [0.0, 0.0])
    """
    if which is None:
        return optimizer

    def init(params: Any) -> ProjectedState:
        inner = optimizer.init(params)
        if has_schedule_free(inner):
            raise UserError(
                "train.project cannot go with a schedule-free optimiser, which keeps a second copy "
                "of the weights; take another optimiser, or leave out project"
            )
        if which == SPHERE:
            return ProjectedState(inner, ())
        leaves = jax.tree.leaves(params)
        norms = tuple(norm_of(leaves, group) for group in groups_of(params, which))
        return ProjectedState(inner, norms)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ProjectedState]:
        updates, inner = optimizer.update(updates, state.inner, params)
        moved = optax.apply_updates(params, updates)
        moved = on_sphere(moved) if which == SPHERE else kept(moved, state.norms)
        return jax.tree.map(jnp.subtract, moved, params), ProjectedState(inner, state.norms)

    def kept(params: Any, norms: tuple[Array, ...]) -> Any:
        leaves, tree = jax.tree.flatten(params)
        for group, target in zip(groups_of(params, which), norms, strict=True):
            norm = norm_of(leaves, group)
            factor = jnp.where((target > 0) & (norm > 0), target / jnp.where(norm > 0, norm, 1), 1)
            for index in group:
                leaves[index] = (leaves[index] * factor).astype(leaves[index].dtype)
        return jax.tree.unflatten(tree, leaves)

    return optax.GradientTransformation(init, update)


def require_sphere(params: Any, which: Projection | None) -> None:
    """Raise `UserError` unless a network on the sphere, and no other, is kept there.

    >>> require_sphere({"ToSphere_0": {"kernel": jnp.ones((1, 1))}}, None)
    Traceback (most recent call last):
    normlab.errors.UserError: the weights of this network are unit vectors, which training must \
keep so: write train: {project: sphere}
    >>> require_sphere({"Dense_0": {"kernel": jnp.ones((1, 1))}}, None)
    """
    if has_spheres(params) and which != SPHERE:
        raise UserError(
            "the weights of this network are unit vectors, which training must keep so: write "
            "train: {project: sphere}"
        )
    if which == SPHERE and not has_spheres(params):
        raise UserError(
            "project: sphere is for a network whose weights are unit vectors, such as model ngpt, "
            "and this one has none; project: weights keeps the norm of any network's kernels"
        )


def groups_of(params: Any, which: Projection) -> list[tuple[int, ...]]:
    """Return the groups of leaves that keep their norm, each as places in the tree's leaves.

    >>> layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> norm = {"norm": {"bias": jnp.zeros(2), "scale": jnp.ones(2)}}
    >>> params = {"Dense_0": layer, "Dense_1": layer, "Norm_0": norm}
    >>> groups_of(params, "weights"), groups_of(params, "weights_and_scales")
    ([(1,)], [(1,), (4, 5)])
    """
    inside = jax.tree.leaves(outside_head(params, "project"))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    paths = [tuple(str(getattr(part, "key", part)) for part in path) for path, _ in leaves]
    kernels = [(i,) for i, path in enumerate(paths) if path[-1] == KERNEL and inside[i]]
    if which == "weights":
        return kernels
    layers: dict[Path, list[int]] = {}
    with_kernel = {path[:-1] for path in paths if path[-1] == KERNEL}
    for i, (path, (_, leaf)) in enumerate(zip(paths, leaves, strict=True)):
        # A scalar is a learnt factor of a branch, and not the scale of a normaliser.
        if path[-1] in SCALES and path[:-1] not in with_kernel and jnp.ndim(leaf) > 0:
            layers.setdefault(path[:-1], []).append(i)
    scaled = [own for own in layers.values() if any(paths[i][-1] == "scale" for i in own)]
    return [*kernels, *map(tuple, scaled)]


def norm_of(leaves: list[Any], group: tuple[int, ...]) -> Array:
    """Compute the Euclidean norm of all numbers of a group of leaves, in float32."""
    squares = [jnp.sum(jnp.square(leaves[index].astype(jnp.float32))) for index in group]
    return jnp.sqrt(jnp.stack(squares).sum())
