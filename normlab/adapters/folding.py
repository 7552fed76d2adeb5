"""Folds batch norm into the layer before it, for inference."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Var, jaxprs_in_params

from normlab.adapters.folding_rms import fold_to_rms
from normlab.adapters.intercepting import Meet, at_each_call
from normlab.adapters.linen_places import (
    Path,
    Place,
    Variables,
    at,
    held,
    input_of,
    place_of,
    put,
)
from normlab.adapters.modes import Around, in_mode
from normlab.adapters.nnx_linen import Layer, NnxNet, update
from normlab.adapters.nnx_models import takes_nnx
from normlab.adapters.nnx_parts import copied, replace_part
from normlab.core import Array
from normlab.errors import UserError
from normlab.models.slots import NORM_STATE, is_ours, no_normaliser


@dataclass(frozen=True)
class Folded:
    """A network for inference, with a report on each of its normalisers.

    Attributes:
        model: the folded model. It is called like the original, and evaluates unless told
            otherwise.
        variables: the variables of the folded model.
        folded: path of each folded normaliser -> path of the layer that holds it now.
        left: path of each normaliser that stayed -> why.
    """

    model: Any
    variables: Variables
    folded: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"folded  {norm} into {layer}" for norm, layer in self.folded.items()]
        return "\n".join(lines + [f"left    {norm}: {why}" for norm, why in self.left.items()])


@takes_nnx
def fold(
    model: nn.Module,
    variables: Variables,
    images: Array,
    *,
    to: Literal["rms"] | None = None,
    **call: Any,
) -> Folded:
    """Fold each batch norm into the convolution or dense layer whose output it alone takes.

    The layer's kernel is multiplied by the normaliser's factor for each channel, and its bias takes
    the offset, so the outputs in evaluation are equal up to rounding. The order of the layers is
    read from a trace of the model, not from names. If every normaliser of a model of this library
    folds, the result is that model with `norm=Identity()`. Otherwise the result skips the folded
    normalisers when it is called.

    With `to="rms"` it is layer normalisation that is folded, into root-mean-square normalisation:
    the centring goes into the layers and parameters whose outputs are summed in its input. The
    outputs are equal up to rounding, which is tried on a random input before it is believed.

    Args:
        model: a model of this library, or any linen module. An NNX module holds its own variables,
            so none are given (`fold(model, images)`), and the folded model is a changed copy of it.
        variables: the variables, with the statistics for inference.
        images: an example of its input; only shape and dtype count.
        to: "rms" to fold layer normalisation into root-mean-square normalisation.
        **call: other arguments of the model's call in evaluation.

    Raises:
        UserError: nothing can be folded; the message says why for each normaliser.

    >>> import jax, jax.numpy as jnp
    >>> from normlab.models.plain import Convnet
    >>> from normlab.norms import BatchNorm
    >>> model = Convnet(norm=BatchNorm(), classes=2, widths=(4,), layers=1)
    >>> x = jnp.ones((1, 4, 4, 3))
    >>> folded = fold(model, model.init(jax.random.key(0), x, train=False), x)
    >>> print(folded)
    folded  NormAct_0/Norm_0 into Conv_0
    >>> sorted(folded.variables["params"]), folded.model.norm
    (['Conv_0', 'Dense_0'], Identity())
    """
    if to is not None:
        if to != "rms":
            raise UserError(f"fold takes to='rms' or none, found to={to!r}")
        return Folded(*fold_to_rms(model, variables, images, call))
    pairs, left = _structure(model, variables, images, call)
    if not pairs:
        why = "".join(f"\n  {path}: {reason}" for path, reason in left.items())
        raise UserError(f"there is no normaliser that can be folded{why or ': the model has none'}")
    without_bias = tuple(p for _, p in pairs if "bias" not in at(variables, ("params", *p)))
    variables = jax.jit(lambda v: _all_folded(v, pairs))(variables)
    report = {str(place): "/".join(layer) for place, layer in pairs}
    if not left and is_ours(model):
        plain = model.clone(norm=no_normaliser())
        variables = {name: tree for name, tree in variables.items() if name != NORM_STATE}
        return Folded(plain, variables, report)
    norms = tuple(place.path for place, _ in pairs)
    if isinstance(model, NnxNet) and model.source.given is not None:
        return Folded(_folded_nnx(model.source.given, variables, pairs), variables, report, left)
    told, settings = in_mode(model, False, call)
    given = tuple(settings.items())
    return Folded(_PassingOver(told, norms, without_bias, given), variables, report, left)


def _all_folded(variables: Variables, pairs: list[tuple[Place, Path]]) -> Variables:
    for place, layer in pairs:
        variables = _folded(variables, place, layer)
    return variables


def _folded(variables: Variables, place: Place, layer: Path) -> Variables:
    weights = at(variables, ("params", *layer))
    kernel = weights["kernel"]
    bias = weights.get("bias", jnp.zeros(kernel.shape[-1:], kernel.dtype))

    def normalised(values: Array) -> Array:
        params, state = place.params(variables), place.state(variables)
        return place.normaliser.apply(params, state, values[None], train=False)[0][0]

    offset, factor = jax.jvp(
        normalised, (bias.astype(jnp.float32),), (jnp.ones(bias.shape, jnp.float32),)
    )
    factor = factor.reshape((1,) * (kernel.ndim - 1) + (-1,))
    new = {"kernel": (kernel * factor).astype(kernel.dtype), "bias": offset.astype(bias.dtype)}
    variables = put(variables, ("params", *layer), new)
    for collection in ("params", place.collection):
        if collection in variables:
            variables = {**variables, collection: _without(variables[collection], place.path)}
    return variables


def _without(tree: Any, path: Path) -> dict[str, Any]:
    """Return `tree` without a branch, and without the branches that this leaves empty."""
    rest = {key: value for key, value in tree.items() if key != path[0]}
    if len(path) > 1 and path[0] in tree:
        inner = _without(tree[path[0]], path[1:])
        rest = {**rest, path[0]: inner} if inner else rest
    return rest


class Passed(nnx.Module):
    """A layer that changes nothing, in the place of a folded normaliser of an NNX model."""

    def __call__(self, x: Array, *args: Any, **kwargs: Any) -> Array:
        """Return `x`."""
        return x


def _folded_nnx(
    model: nnx.Module, variables: Variables, pairs: list[tuple[Place, Path]]
) -> nnx.Module:
    """Copy an NNX model with the folded layers, in evaluation."""
    new = copied(model)
    for place, layer in pairs:
        bias = at(variables, ("params", *layer, "bias"))
        replace_part(new, (*layer, "bias"), nnx.Param(bias))
        replace_part(new, (*layer, "use_bias"), True)
        replace_part(new, place.path, Passed())
    update(new, variables)
    new.eval()
    return new


class _PassingOver(Around):
    """A model that skips its folded normalisers; their layers have a bias instead."""

    norms: tuple[Path, ...]
    biases: tuple[Path, ...]
    given: tuple[tuple[str, Any], ...]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with at_each_call(_passing_over(self.norms, self.biases)):
            return self.model(*args, **{**dict(self.given), **kwargs})


def _passing_over(norms: tuple[Path, ...], biases: tuple[Path, ...]) -> Meet:
    # This is no method of the module, because methods are intercepted themselves.
    def meet(
        module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = module.path
        if path in norms and place_of(module) is not None:
            return input_of(args, kwargs)[0]
        y = call(*args, **kwargs)
        if path in biases and _bears(module):
            bias = module.get_variable("params", "bias").astype(y.dtype)
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return y

    return meet


def _bears(module: nn.Module) -> bool:
    """Return whether a normaliser can be folded into the kernel and bias of a module."""
    kind = module.kind if isinstance(module, Layer) else type(module)
    return kind in (nn.Conv, nn.Dense, nnx.Conv, nnx.Linear)


OUT, IN = "normlab:out:", "normlab:in:"
"""Marks of a layer's output and of a normaliser's input in a trace; the path comes after them."""


def _structure(
    model: nn.Module, variables: Variables, images: Array, call: dict[str, Any]
) -> tuple[list[tuple[Place, Path]], dict[str, str]]:
    """Find for each normaliser the layer whose output it alone takes; for others, say why not.

    Outputs of layers and inputs of normalisers are marked in the trace. Two marks are a pair if
    they have the same value between them and nothing else uses it.
    """
    places: dict[Path, Place] = {}
    transformed: set[Path] = set()
    calls: Counter[Path] = Counter()
    inside: set[Path] = set()

    def mark(
        module: nn.Module, then: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = module.path
        if _bears(module):
            calls[path] += 1
            if getattr(module, "promote_dtype", promote_dtype) is not promote_dtype:
                transformed.add(path)
            return checkpoint_name(then(*args, **kwargs), OUT + "/".join(path))
        place = place_of(module)
        if place is None or not (place.params({"params": model_params}) or held(module, place)):
            return then(*args, **kwargs)
        places[path] = place
        if path in inside:  # a swap has put it in the place of the layer that is called
            return then(*args, **kwargs)
        calls[path] += 1
        x, _ = input_of(args, kwargs)
        x = checkpoint_name(x, IN + "/".join(path))
        inside.add(path)
        y = then(x, *args[1:], **{name: v for name, v in kwargs.items() if name != "x"})
        inside.remove(path)
        return y

    model_params = variables.get("params", {})
    with at_each_call(mark):
        told, settings = in_mode(model, False, call)
        traced = jax.make_jaxpr(lambda v, x: told.apply(v, x, **settings))(variables, images)
    found = _Links()
    found.read(traced.jaxpr)

    pairs, left = [], {}
    for path, place in places.items():
        name, before = str(place), found.layer_before.get(path)
        layer = "/".join(before or ())
        kind = type(place.normaliser).__name__
        if not _is_affine(place, variables):
            left[name] = f"{kind} is more than a factor and an offset in evaluation"
        elif before is None:
            left[name] = "its input is not the output of a convolution or dense layer"
        elif before in transformed:
            left[name] = f"the kernel of {layer} is transformed before it is used"
        elif not _fits(variables, place, before):
            left[name] = f"{layer} stands for several layers (nn.scan, nn.vmap)"
        elif calls[path] > 1 or calls[before] > 1:
            left[name] = f"it or {layer} is called several times"
        elif found.uses[before] > 1:
            left[name] = f"the output of {layer} goes elsewhere too"
        else:
            pairs.append((place, before))
    return pairs, left


def _is_affine(place: Place, variables: Variables) -> bool:
    """Return whether a normaliser is a factor and an offset in evaluation, with its state."""
    asked = getattr(place.normaliser, "is_affine", None)
    if asked is None:
        return place.normaliser.facts.affine_in_evaluation
    return bool(asked(place.state(variables)))


def _fits(variables: Variables, place: Place, layer: Path) -> bool:
    """Return whether the normaliser's leaves have one value for each output channel."""
    weights = at(variables, ("params", *layer)) or {}
    width = weights["kernel"].shape[-1:] if "kernel" in weights else None
    own = place.normaliser.init(width[0]) if width else ({}, {})
    found = place.params(variables), place.state(variables)
    return width is not None and all(
        leaf.shape == given.get(name, leaf).shape
        for made, given in zip(own, found, strict=True)
        for name, leaf in made.items()
    )


def _path(name: str, mark: str) -> Path:
    return tuple(filter(None, name.removeprefix(mark).split("/")))


class _Links:
    """Reads from a trace the layer before each normaliser, and how often each output is used."""

    def __init__(self) -> None:
        self.layer_before: dict[Path, Path] = {}
        self.uses: Counter[Path] = Counter()

    def read(self, jaxpr: Any) -> None:
        """Note the marks in a trace and in the traces inside it."""
        made: dict[Any, Path] = {}
        for equation in jaxpr.eqns:
            for value in equation.invars:
                if isinstance(value, Var) and value in made:
                    self.uses[made[value]] += 1
            name = equation.params.get("name", "") if equation.primitive.name == "name" else ""
            if name.startswith(OUT):
                made[equation.outvars[0]] = _path(name, OUT)
            elif name.startswith(IN) and equation.invars[0] in made:
                self.layer_before[_path(name, IN)] = made[equation.invars[0]]
            for inner in jaxprs_in_params(equation.params):
                self.read(inner)
        for value in jaxpr.outvars:
            if isinstance(value, Var) and value in made:
                self.uses[made[value]] += 1
