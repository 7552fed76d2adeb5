"""Finds how a model is told training from evaluation, and calls it so.

The words below are looked for among the parameters of the model's call and among its fields. A
model that has none of them is told through its layers: in evaluation every layer with
`use_running_average` or `deterministic` evaluates, whatever the model set there.
"""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from normlab.adapters.intercepting import Meet, at_each_call
from normlab.adapters.nnx_linen import NnxNet

TRUE_IN_TRAINING: tuple[str, ...] = ("train", "training", "is_training", "is_train")
TRUE_IN_EVALUATION: tuple[str, ...] = (
    "deterministic",
    "use_running_average",
    "inference",
    "is_eval",
    "eval_mode",
    "evaluate",
    "is_testing",
)
SWITCHES: dict[str, bool] = {
    **{name: True for name in TRUE_IN_TRAINING},
    **{name: False for name in TRUE_IN_EVALUATION},
}
"""The words that tell a model training from evaluation -> their value in training."""

OF_LAYERS = ("use_running_average", "deterministic")
"""The words of Flax's own layers."""


class Around(nn.Module):
    """A module that calls another one with something changed, on the same variables."""

    model: nn.Module

    def setup(self) -> None:
        """Place variables where the model alone would have them."""
        assert self.scope is not None
        object.__setattr__(self.model, "scope", self.scope)
        self.scope.reservations.pop("model", None)  # the model may have a layer of this name
        _place_children(self.model)


def _place_children(module: nn.Module) -> None:
    """Keep the paths and keys of a model's own layers, as if nothing were around the model."""
    for child in module._state.children.values():
        if isinstance(child, nn.Module) and child.scope is not None and module.scope is not None:
            scope = module.scope.push(child.scope.name, reuse=True)
            object.__setattr__(child, "scope", scope)
            _place_children(child)


class _Told(Around):
    """A model whose layers are told whether it is training."""

    train: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with at_each_call(_telling(self.train)):
            return self.model(*args, **kwargs)


def innermost(model: nn.Module) -> nn.Module:
    """Return the innermost model, without those around it.

    >>> innermost(_Told(nn.Dense(1), train=True)).features
    1
    """
    return innermost(model.model) if isinstance(model, Around) else model


def switches(model: nn.Module) -> tuple[list[str], list[str]]:
    """Find a model's words for training and evaluation, among its call's arguments and its fields.

    >>> class Net(nn.Module):
    ...     deterministic: bool = True
    ...     def __call__(self, x, train: bool = False):
    ...         return x
    >>> switches(Net())
    (['train'], ['deterministic'])
    """
    inner = innermost(model)
    if isinstance(inner, NnxNet):
        return [name for name in inner.source.parameters if name in SWITCHES], ["train"]
    parameters = list(inspect.signature(type(inner).__call__).parameters)[1:]
    fields = [name for name in SWITCHES if isinstance(getattr(inner, name, ""), bool | None)]
    return [name for name in parameters if name in SWITCHES], fields


def in_mode(
    model: nn.Module, train: bool, call: dict[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model and the arguments with which its call trains, or evaluates.

    Args:
        model: any linen module.
        train: whether the call trains.
        call: the given arguments; they take precedence.

    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, *, deterministic: bool = False):
    ...         return x
    >>> in_mode(Net(), False, {})[1]
    {'deterministic': True}
    """
    words, fields = switches(model)
    found = {name: SWITCHES[name] is train for name in words}
    inner = innermost(model)
    # A field that says the same as an argument is left open: Flax refuses two answers.
    open_ = {name: None for name in fields if name in words}
    open_ |= {name: SWITCHES[name] is train for name in fields if name not in words}
    changed: dict[str, Any] = {
        name: value for name, value in open_.items() if getattr(inner, name) != value
    }
    inner = inner.clone(**changed) if changed else inner
    if not words and not fields and not SWITCHES.keys() & call.keys():
        inner = _Told(inner, train)
    return _rebuilt(model, inner, train), found | call


def with_fields(
    values: dict[str, bool], module: nn.Module, call: Any, args: Any, kwargs: dict[str, Any]
) -> Any:
    """Call a layer with other values of its fields; an argument of the same name gives way."""
    parameters = list(inspect.signature(type(module).__call__).parameters.values())[1:]
    if not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        names = [one.name for one in parameters]
        kwargs = dict(zip(names[1:], args[1:], strict=False)) | kwargs
        args = args[:1]
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        object.__setattr__(module, name, value)
    try:
        return call(*args, **{name: v for name, v in kwargs.items() if name not in values})
    finally:
        for name, value in before.items():
            object.__setattr__(module, name, value)


def _rebuilt(model: nn.Module, inner: nn.Module, train: bool) -> nn.Module:
    """Put another model inside those around it, and tell these the mode too."""
    if not isinstance(model, Around):
        return inner
    told: dict[str, Any] = {"train": train} if hasattr(model, "train") else {}
    return model.clone(model=_rebuilt(model.model, inner, train), **told)


def _telling(train: bool) -> Meet:
    # This is no method of the module, because methods are intercepted themselves.
    def tell(
        module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        words = [name for name in OF_LAYERS if name in type(module).__dataclass_fields__]
        if train:  # a layer that is told stays so: a frozen one may be meant
            words = [n for n in words if getattr(module, n) is None and kwargs.get(n) is None]
        values = {name: SWITCHES[name] is train for name in words}
        if not values:
            return call(*args, **kwargs)
        return with_fields(values, module, call, args, kwargs)

    return tell
