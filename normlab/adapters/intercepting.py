"""Meets the calls of a linen model's layers as they happen."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn

Meet = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function of a layer, its call and the call's arguments that gives the call's output."""


def at_each_call(meet: Meet) -> AbstractContextManager[None]:
    """Let `meet(layer, call, args, kwargs)` stand for every `layer(*args, **kwargs)` in the block.

    Other methods of a layer, and unbound layers, are called as usual.

    >>> import jax
    >>> def meet(layer, call, args, kwargs):
    ...     print(type(layer).__name__, args[0].shape)
    ...     return call(*args, **kwargs)
    >>> with at_each_call(meet):
    ...     _ = nn.Dense(3).init(jax.random.key(0), jax.numpy.ones((2, 5)))
    Dense (2, 5)
    """

    def intercept(
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        if context.method_name != "__call__" or layer.scope is None:
            return call(*args, **kwargs)
        return meet(layer, call, args, kwargs)

    return nn.intercept_methods(intercept)
