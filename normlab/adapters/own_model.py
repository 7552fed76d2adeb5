"""Makes a classifier from a person's linen module, NNX module, class or function.

The numbers that the data decide are found by the names of the arguments. Given arguments take
precedence.
"""

import dataclasses
import inspect
import itertools
import math
import typing
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from normlab.adapters import linen
from normlab.adapters import nnx as nnx_layers
from normlab.adapters.classifier import Classifier
from normlab.adapters.flax_layers import LINEN_LAYERS, NNX_LAYERS
from normlab.adapters.modes import in_mode
from normlab.adapters.nnx_linen import NnxNet, Source, as_linen
from normlab.adapters.nnx_parts import copied
from normlab.adapters.swapping import Where
from normlab.core import Normaliser
from normlab.errors import FieldError, UserError

CLASSES = ("num_classes", "classes", "n_classes", "nb_classes", "num_labels", "n_labels")
"""Names of arguments that are the number of classes."""

WIDTHS = (
    "out",
    "out_features",
    "num_outputs",
    "n_outputs",
    "outputs",
    "output_dim",
    "out_dim",
    "output_size",
    "dout",
    "features",
)
"""Names of arguments that are the number of classes if the output then has this width."""

CHANNELS = ("in_channels", "in_chans", "input_channels", "num_channels", "channels_in")
"""Names of arguments that are the number of channels of the images."""

INPUTS = ("in_features", "input_dim", "in_dim", "input_size", "din")
"""Names of arguments that are the channels of the images, or the number of their values."""

SIDES = ("image_size", "img_size", "input_resolution")
"""Names of arguments that are the side of the images, or height and width."""

FOUND = frozenset({*CLASSES, *WIDTHS, *CHANNELS, *INPUTS, *SIDES})
"""Names of arguments that need not be given."""

NNX_REPLACED = (*NNX_LAYERS, nnx_layers.Norm)
LINEN_REPLACED = (*LINEN_LAYERS, linen.Norm)
"""The layers that `with_normaliser` replaces."""


def make_classifier(
    named: Any,
    given: dict[str, Any],
    classes: int,
    image_shape: tuple[int, ...],
    data_have: str = "the data have",
) -> nn.Module:
    """Make a linen module that returns one logit for each class; nothing is computed.

    Args:
        named: a linen module or its class, an NNX module or its class, or a function that returns
            one of them. NNX classes and functions get `rngs`.
        given: arguments of the class or function. A mapping for an argument whose annotation is a
            dataclass becomes one.
        classes: the number of classes.
        image_shape: `(H, W, C)`.
        data_have: the words before the number of classes in a message.

    Raises:
        UserError: `named` is no model, or needs an argument.
        FieldError: the output has another width; the field is the argument that decides it.

    >>> net = make_classifier(nn.Dense, {}, classes=3, image_shape=(4,))
    >>> net.features
    3
    """
    if isinstance(named, nn.Module | nnx.Module):
        if given:
            raise UserError(f"a {type(named).__name__} that is made takes no {', '.join(given)}")
        model = named if isinstance(named, nn.Module) else as_linen(named)
        width = _width(model, image_shape)
        if width != classes:
            # Otherwise the loss of a label without a logit is NaN, which looks like divergence.
            raise UserError(
                f"the model returns {width} logits but {data_have} {classes} classes: make the "
                f"model with classes={classes}"
            )
        return model
    types = types_of(named)
    given = {name: _in_dataclasses(value, types.get(name)) for name, value in given.items()}
    widths, failure = [], None
    for more in _choices(named, given, classes, image_shape):
        model = _made(named, given | more)
        try:
            width = _width(model, image_shape)
        except Exception as error:
            failure = failure or error
            continue
        if width == classes:
            return model
        widths.append(width)
    if failure is not None and not widths:
        raise failure
    for name, settings in given.items():
        inner = next((n for n in CLASSES if n in _fields_of(settings)), None)
        if inner is not None:
            message = f"it returns {widths[0]} logits, and {data_have} {classes} classes: set "
            raise FieldError(name, f"{message}{name}.{inner} to {classes}")
    said = [name for name in (*CLASSES, *WIDTHS) if name in given]
    field = said[0] if said else None
    mend = f"leave out {field}" if field else f"give it an argument called {CLASSES[0]}"
    message = (
        f"it returns {widths[0]} logits, and {data_have} {classes} classes: {mend}, which is "
        "then filled in from the data"
    )
    raise FieldError(field, message) if field else UserError(message)


def parameters_of(named: Any) -> dict[str, inspect.Parameter]:
    """List the arguments by which a model is made, by name.

    >>> list(parameters_of(nnx.Linear))[:2]
    ['in_features', 'out_features']
    """
    if isinstance(named, nn.Module | nnx.Module):
        return {}
    if not callable(named):
        raise UserError(
            "a model is a linen or NNX module, its class, or a function that returns one; found a "
            f"{type(named).__name__}"
        )
    if isinstance(named, partial):
        first = len(named.args)  # Arguments given by position are taken.
        found = list(parameters_of(named.func).items())[first:]
        return {n: p.replace(default=named.keywords.get(n, p.default)) for n, p in found}
    nnx_class = isinstance(named, type) and issubclass(named, nnx.Module)
    # The signature of an NNX class is that of its metaclass, which takes anything.
    function: Any = named.__init__ if nnx_class else named
    parameters = list(inspect.signature(function).parameters.values())[1 if nnx_class else 0 :]
    return {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def types_of(named: Any) -> dict[str, Any]:
    """Return the annotations of the arguments by which a model is made, where Python knows them.

    >>> types_of(nn.Dense)["features"]
    <class 'int'>
    """
    function = named.func if isinstance(named, partial) else named
    fields = dataclasses.is_dataclass(function) or not isinstance(function, type)
    try:
        return typing.get_type_hints(function if fields else function.__init__)
    except Exception:  # names that only a type checker sees
        return {}


def dataclass_in(annotation: Any) -> type | None:
    """Return the dataclass that an annotation names, also where it may be None.

    >>> dataclass_in(nn.Dense | None), dataclass_in(int)
    (<class 'flax.linen.linear.Dense'>, None)
    """
    kinds = (annotation, *typing.get_args(annotation))
    return next(
        (kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def _fields_of(value: Any) -> list[str]:
    made = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return [field.name for field in dataclasses.fields(value)] if made else []


def _in_dataclasses(value: Any, annotation: Any) -> Any:
    """Make a mapping the dataclass that an annotation names, such as a model's settings."""
    kind = dataclass_in(annotation)
    if kind is None or not isinstance(value, dict):
        return value
    types = types_of(kind)
    return kind(**{name: _in_dataclasses(one, types.get(name)) for name, one in value.items()})


def with_normaliser(
    model: nn.Module,
    normaliser: Normaliser,
    image_shape: tuple[int, ...],
    where: Where | None = None,
) -> nn.Module:
    """Put a normaliser in the place of a model's normalisation layers.

    Args:
        model: as `make_classifier` makes it.
        normaliser: the normaliser to put in.
        image_shape: `(H, W, C)`.
        where: the layers to replace, as for `swap`; None for all.

    Raises:
        UserError: there is no such layer, or it cannot be replaced.

    >>> from normlab.norms import RMSNorm
    >>> net = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
    >>> print(with_normaliser(net, RMSNorm(), (3,)).report(jnp.ones((1, 3))))
    changed  layers_1: RMSNorm(eps=1e-05, use_scale=True, use_bias=False, zero_centred=False)
    """
    if isinstance(model, NnxNet):
        source = model.source

        def swapped(new: nnx.Module) -> nnx.Module:
            nnx_layers.swap(new, NNX_REPLACED, normaliser, where)
            return new

        if source.given is None:
            return NnxNet(Source(lambda rngs: swapped(source.make(rngs))))
        return as_linen(swapped(copied(source.given)))
    swapped_model = linen.swap(model, LINEN_REPLACED, normaliser, where)
    told, call = in_mode(swapped_model, False, {})
    assert isinstance(told, linen.SwappedModel)
    told.report(jnp.zeros((2, *image_shape)), **call)
    return swapped_model


def _choices(
    named: Any, given: dict[str, Any], classes: int, image_shape: tuple[int, ...]
) -> list[dict[str, Any]]:
    """List the arguments to try beside those that are given, the likeliest first."""
    parameters = parameters_of(named)
    open_ = {n: p.default for n, p in parameters.items() if n not in given}
    needed = {n for n, default in open_.items() if default is inspect.Parameter.empty}
    side: Any = image_shape[0] if len(set(image_shape[:2])) == 1 else tuple(image_shape[:2])
    sure: dict[str, Any] = {n: classes for n in CLASSES if n in open_}
    sure |= {n: image_shape[-1] for n in CHANNELS if n in open_}
    for name in SIDES:
        if name in open_:
            pair = isinstance(open_[name], tuple | list)
            sure[name] = tuple(image_shape[:2]) if pair else side
    inputs = [n for n in INPUTS if n in needed]
    sizes = [image_shape[-1], math.prod(image_shape)] if inputs else [None]
    widths = [n for n in WIDTHS if n in open_ and not sure.keys() & set(CLASSES)]
    must = [n for n in widths if n in needed]
    first = {n: classes for n in must}
    tries = [first, *({**first, n: classes} for n in widths if n not in must)]
    missing = needed - sure.keys() - set(inputs) - first.keys() - {"rngs", "parent", "name"}
    if missing:
        raise UserError(f"{_name(named)} needs {', '.join(sorted(missing))}")
    return [
        {**sure, **dict.fromkeys(inputs, size), **more}
        for size, more in itertools.product(sizes, tries)
    ]


def _made(named: Any, arguments: dict[str, Any]) -> nn.Module:
    if isinstance(named, type) and issubclass(named, nn.Module):
        return named(**arguments)
    takes_rngs = "rngs" in parameters_of(named)
    make = partial(named, **arguments)
    if not takes_rngs:
        made = make()
        if isinstance(made, nnx.Module):
            return as_linen(made)
        if not isinstance(made, nn.Module):
            raise UserError(
                f"{_name(named)} returns a {type(made).__name__}; a model is a linen or NNX module"
            )
        return made
    return NnxNet(Source(lambda rngs: make(rngs=rngs)))


def _width(model: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Return the number of logits that a model returns; nothing is computed."""
    network = Classifier(model)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def call(images: Any) -> Any:
        params, state = network.init(jax.random.key(0), images)
        return network.apply(params, state, images, train=False)[0]

    return jax.eval_shape(call, images).shape[-1]


def _name(named: Any) -> str:
    return getattr(named, "__qualname__", None) or type(named).__name__
