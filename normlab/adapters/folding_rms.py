"""Folds the centring of layer normalisation into the layers before it, so that RMS does the rest.

Layer normalisation of a vector whose mean is zero is its root-mean-square normalisation. A vector
that is a sum of outputs of linear layers and of parameters has mean zero if each of them has, and
a linear layer's output has if its kernel and its bias do over the output channels (Jiang et al.
2023, arXiv:2305.14858; Guo et al. 2026, arXiv:2605.14521). Nothing but layer normalisation sees
the difference where each reader of such a sum subtracts the mean itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from normlab.adapters.flax_layers import like_flax
from normlab.adapters.intercepting import Meet, at_each_call
from normlab.adapters.linen_norm import Norm as Layer
from normlab.adapters.linen_places import Path, Variables, at, input_of, put
from normlab.adapters.modes import Around, in_mode
from normlab.adapters.nnx_linen import NnxNet
from normlab.adapters.traced_values import Node, keeps_channels, nodes
from normlab.core import Array, Normaliser
from normlab.errors import UserError
from normlab.models.slots import NORM, Norm, is_ours

CLOSE = 1e-3
"""The outputs may differ by so much of the largest: roundings add up over a network. What reads
the mean of a sum of its own differs by far more on inputs that are drawn at random."""

OUT, IN = "normlab:linear:", "normlab:centred:"


@dataclass
class Centring:
    """What can be centred for the layer normalisations of a model.

    Attributes:
        norms: path of each normaliser -> the normaliser that stands for it afterwards.
        layers: the layers whose kernel and bias are centred.
        params: the other parameters that are centred, by path.
        left: path of each normaliser that stays -> why.
    """

    norms: dict[Path, Normaliser] = field(default_factory=dict)
    layers: set[Path] = field(default_factory=set)
    params: set[Path] = field(default_factory=set)
    left: dict[str, str] = field(default_factory=dict)


def fold_to_rms(
    model: nn.Module, variables: Variables, images: Array, call: dict[str, Any]
) -> tuple[nn.Module, Variables, dict[str, str], dict[str, str]]:
    """Return the model with root-mean-square normalisation, its variables, and what was done.

    Raises:
        UserError: no layer normalisation can be folded; the message says why for each.
    """
    if isinstance(model, NnxNet):
        raise UserError("fold(..., to='rms') takes linen models, and this one is an NNX model")
    found, sources = _found(model, variables, images, call)
    for paths in _together(sources):
        wanted = {path: found.norms[path] for path in paths}
        layers = set().union(*(sources[path][0] for path in paths))
        params = set().union(*(sources[path][1] for path in paths))
        one = Centring(wanted, layers, params)
        if _same(model, variables, images, call, one):
            continue
        for path in paths:
            del found.norms[path]
            found.left["/".join(path)] = "something else reads the mean of what it takes"
    kept = {path: sources[path] for path in found.norms}
    found.layers = set().union(*(layers for layers, _ in kept.values()))
    found.params = set().union(*(params for _, params in kept.values()))
    if not found.norms:
        why = "".join(f"\n  {path}: {reason}" for path, reason in found.left.items())
        raise UserError(f"no layer normalisation can be folded{why or ': the model has none'}")
    report = {
        "/".join(path): ", ".join(
            sorted("/".join(one) for one in sources[path][0] | sources[path][1])
        )
        for path in found.norms
    }
    return _folded(model, call, found), _centred(variables, found), report, found.left


def _folded(model: nn.Module, call: dict[str, Any], found: Centring) -> nn.Module:
    others = set(found.norms.values())
    if is_ours(model) and not found.left and len(others) == 1:
        return model.clone(norm=others.pop())
    told, settings = in_mode(model, False, call)
    return _Replacing(told, tuple(found.norms.items()), tuple(settings.items()))


class _Replacing(Around):
    """A model in which some layers' calls are those of another normaliser, with their params."""

    norms: tuple[tuple[Path, Normaliser], ...]
    given: tuple[tuple[str, Any], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with at_each_call(_replacing(dict(self.norms))):
            return self.model(*args, **{**dict(self.given), **kwargs})


def _replacing(norms: dict[Path, Normaliser]) -> Meet:
    def meet(
        module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        instead = norms.get(module.path)
        if instead is None or _without_mean(module) is None:
            return call(*args, **kwargs)
        held = module.variables.get("params", {})
        params = {str(key): leaf for key, leaf in held.get(NORM, held).items()}
        x, mask = input_of(args, kwargs)
        dtype = getattr(module, "dtype", None)
        y, _ = instead.apply(params, {}, x, train=False, mask=mask)
        return y if dtype is None else y.astype(dtype)

    return meet


def _without_mean(module: nn.Module) -> Normaliser | None:
    """Return what a layer is where the mean is zero, or None if it is no such layer."""
    if isinstance(module, Norm | Layer):
        norm: Normaliser = module.normaliser
    elif isinstance(module, nn.LayerNorm):
        try:
            norm = like_flax(module)
        except UserError:
            return None
    else:
        return None
    without = getattr(norm, "without_mean", None)
    return None if without is None else without()


def _found(
    model: nn.Module, variables: Variables, images: Array, call: dict[str, Any]
) -> tuple[Centring, dict[Path, tuple[set[Path], set[Path]]]]:
    """Find the layer normalisations, and the layers and parameters that each one's input sums."""
    norms: dict[Path, Normaliser] = {}
    transformed: set[Path] = set()

    def mark(
        module: nn.Module, then: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = module.path
        if type(module) in (nn.Conv, nn.Dense):
            if getattr(module, "promote_dtype", promote_dtype) is not promote_dtype:
                transformed.add(path)
            return checkpoint_name(then(*args, **kwargs), OUT + "/".join(path))
        without = _without_mean(module)
        if without is None or path in norms:
            return then(*args, **kwargs)
        norms[path] = without
        x, _ = input_of(args, kwargs)
        x = checkpoint_name(x, IN + "/".join(path))
        return then(x, *args[1:], **{name: v for name, v in kwargs.items() if name != "x"})

    told, settings = in_mode(model, False, call)
    with at_each_call(mark):
        traced = jax.make_jaxpr(lambda v, x: told.apply(v, x, **settings))(variables, images)
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    paths = [tuple(str(getattr(key, "key", key)) for key in path) for path, _ in leaves]
    inputs = [
        Node("param", (), leaf.shape, {"path": path})
        for path, (_, leaf) in zip(paths, leaves, strict=True)
    ]
    rest = traced.jaxpr.invars[len(inputs) :]
    inputs += [Node("input", (), np.shape(images), {}) for _ in rest]
    taken: dict[Path, Node] = {}
    for node in nodes(traced.jaxpr, inputs, traced.consts):
        if node.name.startswith(IN):
            taken[_path(node.name, IN)] = node.inputs[0]
    found, sources = Centring(), {}
    for path, instead in norms.items():
        try:
            layers, params = _sources(taken[path])
        except _NotLinearError as error:
            found.left["/".join(path)] = str(error)
            continue
        odd = layers & transformed
        if odd:
            name = "/".join(min(odd))
            found.left["/".join(path)] = f"the kernel of {name} is transformed before it is used"
            continue
        found.norms[path], sources[path] = instead, (layers, params)
    return found, sources


class _NotLinearError(Exception):
    """Says why the input of a normaliser is no sum of outputs of linear layers."""


def _sources(node: Node) -> tuple[set[Path], set[Path]]:
    """Collect the layers and the parameters whose sum a value is.

    Raises:
        _NotLinearError: it is something else.
    """
    layers: set[Path] = set()
    params: set[Path] = set()
    ahead, seen = [node], set()
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if one.name.startswith(OUT):
            layers.add(_path(one.name, OUT))
        elif one.made_by == "param" and one.params["path"][0] == "params":
            params.add(one.params["path"][1:])
        elif one.made_by == "zero":
            continue
        elif keeps_channels(one):
            ahead += one.inputs
        else:
            raise _NotLinearError(
                f"its input is not a sum of outputs of linear layers and of parameters, but goes "
                f"through '{one.made_by}'"
            )
    return layers, params


def _path(name: str, mark: str) -> Path:
    return tuple(filter(None, name.removeprefix(mark).split("/")))


def _together(sources: dict[Path, tuple[set[Path], set[Path]]]) -> list[list[Path]]:
    """Join the normalisers that share a layer or a parameter, as those of one main branch do."""
    groups: list[tuple[set[Path], list[Path]]] = []
    for path, (layers, params) in sources.items():
        own, members = layers | params, [path]
        for other in [one for one in groups if one[0] & own]:
            groups.remove(other)
            own, members = own | other[0], other[1] + members
        groups.append((own, members))
    return [members for _, members in groups]


def _same(
    model: nn.Module, variables: Variables, images: Array, call: dict[str, Any], one: Centring
) -> bool:
    """Return whether the folded model gives the outputs of the model, on an input at random."""
    x = jax.random.normal(jax.random.key(0), images.shape).astype(images.dtype)
    told, settings = in_mode(model, False, call)
    drawn = jax.tree.map(lambda leaf: leaf, variables)
    before = told.apply(drawn, x, **settings)
    replaced = _Replacing(told, tuple(one.norms.items()), tuple(settings.items()))
    after = replaced.apply(_centred(drawn, one), x)
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return all(
        bool(jnp.abs(a - b).max() <= CLOSE * jnp.maximum(jnp.abs(a).max(), 1e-6)) for a, b in pairs
    )


def _centred(variables: Variables, found: Centring) -> Variables:
    """Take the mean over the output channels away from kernels, biases and other parameters."""
    for path in found.layers:
        layer = at(variables, ("params", *path))
        new = {name: _less_mean(leaf) for name, leaf in layer.items()}
        variables = put(variables, ("params", *path), new)
    for path in found.params:
        variables = put(variables, ("params", *path), _less_mean(at(variables, ("params", *path))))
    return variables


def _less_mean(leaf: Array) -> Array:
    wide = leaf.astype(jnp.float32)
    return (wide - wide.mean(axis=-1, keepdims=True)).astype(leaf.dtype)
