"""Lets functions of a linen model and its variables take an NNX model, which holds its own."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flax import nnx

from normlab.adapters.nnx_linen import NnxNet, as_linen, update, variables_of
from normlab.adapters.nnx_parts import copied


def takes_nnx(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `function(model, variables, ...)` also be called as `function(nnx_model, ...)`."""

    @wraps(function)
    def either(model: Any, *arguments: Any, **call: Any) -> Any:
        if not isinstance(model, nnx.Module):
            return function(model, *arguments, **call)
        return function(as_linen(model), variables_of(model), *arguments, **call)

    return either


def renews_nnx(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that returns variables also take an NNX model, and return a copy with them.

    The function is called as for `takes_nnx`. The model that was given stays as it is.
    """
    of_variables = takes_nnx(function)

    @wraps(function)
    def either(model: Any, *arguments: Any, **call: Any) -> Any:
        found = of_variables(model, *arguments, **call)
        return with_variables(model, found) if isinstance(model, nnx.Module) else found

    return either


def with_variables(model: nnx.Module, variables: dict[str, Any]) -> nnx.Module:
    """Copy an NNX model, and give the copy these variables."""
    new = copied(model)
    update(new, variables)
    return new


def trained(model: Any, variables: dict[str, Any]) -> Any:
    """Give a person's model back after training.

    An NNX model is made anew, with these variables and in evaluation mode. A linen module, which
    holds no variables, is returned as it is.

    >>> import jax.numpy as jnp
    >>> net = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    >>> kernel = {"params": {"kernel": jnp.ones((2, 1))}}
    >>> trained(as_linen(net), kernel)(jnp.ones((1, 2))).item()
    2.0
    """
    if not isinstance(model, NnxNet):
        return model
    source = model.source
    new = copied(source.given) if source.given is not None else source.make(nnx.Rngs(0))
    update(new, variables)
    new.eval()
    return new
