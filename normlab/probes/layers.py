"""Finds the layers of any linen network, their inputs, outputs and gradients, in call order.

A layer is any module with its own parameter `kernel`: a convolution, a dense layer, an attention's
projections. Its input is an activation, and its output a pre-activation. Layers are found by
tracing the loss once, which computes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from normlab.adapters.classifier import NORMALISERS
from normlab.adapters.intercepting import at_each_call
from normlab.core import Array
from normlab.errors import UserError
from normlab.probes.contract import Moment, PerLayer, Subject

KERNEL = "kernel"

Place = Literal["inputs", "outputs", "norms"]
"""The places to measure: the input of each layer but the first (its input is the images), the
output of each layer, or the output of each normaliser.
"""

_SHAPES_ALONE: ContextVar[bool] = ContextVar("shapes alone", default=False)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Let gradients be zeros of the right shapes in the block, which only traces probes.

    To differentiate a network takes three times as long as to trace it. Use another `Subject` in
    the block than outside of it, because what is traced is kept by subject.
    """
    token = _SHAPES_ALONE.set(True)
    try:
        yield
    finally:
        _SHAPES_ALONE.reset(token)


def _zeros_like(tree: Any) -> Any:
    return jax.tree.map(jnp.zeros_like, tree)


class LayerCall(NamedTuple):
    """One call of a layer or a normaliser while the loss is traced."""

    path: tuple[str, ...]
    module: nn.Module
    x: Any
    y: Any
    trace: Any


@dataclass
class _Watch:
    """Records the calls that `at_each_call` shows it, and may change their inputs and outputs."""

    wanted: Callable[[nn.Module], bool]
    before: Callable[[int, Array], Array] = lambda number, x: x
    after: Callable[[int, Array], Array] = lambda number, y: y
    calls: list[LayerCall] = field(default_factory=list)
    _within: set[tuple[str, ...]] = field(default_factory=set)

    def __call__(
        self,
        module: nn.Module,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        path = tuple(module.path)
        # A method that calls its parent class's method is intercepted twice.
        if path in self._within or not self.wanted(module):
            return call(*args, **kwargs)
        number, x = len(self.calls), None
        if args:
            x = self.before(number, args[0])
            args = (x, *args[1:])
        elif kwargs:
            first = next(iter(kwargs))
            x = self.before(number, kwargs[first])
            kwargs = {**kwargs, first: x}
        self.calls.append(LayerCall(path, module, x, None, _trace()))
        self._within.add(path)
        y = self.after(number, call(*args, **kwargs))
        self._within.remove(path)
        self.calls[number] = self.calls[number]._replace(y=y)
        return y


def _trace() -> Any:
    """Return the innermost trace; nn.remat and the like have one that values cannot leave."""
    return getattr(jnp.zeros(()), "_trace", None)


def _is_layer(module: nn.Module) -> bool:
    return module.scope is not None and module.scope.has_variable("params", KERNEL)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMALISERS)


def loss_of(subject: Subject, moment: Moment) -> Callable[[Any], Array]:
    """Return the loss as a function of the parameters, at this moment's state and batch."""
    state, images, labels = moment.norm_state, moment.images, moment.labels
    return lambda params: subject.loss(params, state, images, labels)[0]


@partial(jax.jit, static_argnums=0)
def loss_and_gradient(subject: Subject, moment: Moment) -> tuple[Array, Any]:
    """Compute the training loss and its gradient with respect to the parameters."""
    if _SHAPES_ALONE.get():
        return jnp.zeros(()), _zeros_like(moment.params)
    return jax.value_and_grad(loss_of(subject, moment))(moment.params)


def gradient_at(subject: Subject, moment: Moment) -> Callable[[Any], tuple[Array, Any]]:
    """Return `loss_and_gradient` as a function of the parameters, compiled once per subject."""
    return lambda params: loss_and_gradient(subject, moment._replace(params=params))


def layers(subject: Subject, moment: Moment) -> tuple[tuple[str, ...], ...]:
    """Find the paths of the layers in the order of their first calls.

    Raises:
        UserError: the network has no layers.
    """
    watch = _Watch(_is_layer)
    with at_each_call(watch):
        jax.eval_shape(loss_of(subject, moment), moment.params)
    paths = tuple(dict.fromkeys(call.path for call in watch.calls))
    if not paths:
        raise UserError(
            "this network has no layer to look at: none of the modules that its loss calls has a "
            "parameter 'kernel'. A probe sees the calls of linen modules while the loss is "
            "traced, so the loss itself must not be jitted"
        )
    return paths


def owners(subject: Subject, moment: Moment) -> Any:
    """Assign each parameter to a layer: a tree like the parameters, of layer numbers from 0.

    A layer owns its own parameters. The parameters of a module without layers (a normaliser) belong
    to the last layer called before it. The own parameters of a module that contains layers belong
    to the first of them.
    """
    watch = _Watch(lambda module: True)
    with at_each_call(watch):
        jax.eval_shape(loss_of(subject, moment), moment.params)
    of: dict[tuple[str, ...], int] = {}
    found: list[tuple[str, ...]] = []
    for number, call in enumerate(watch.calls):
        inner = (c for c in watch.calls[number + 1 :] if c.path[: len(call.path)] == call.path)
        if call.path in of:
            continue
        if _is_layer(call.module):
            found.append(call.path)
            of[call.path] = len(found) - 1
        elif any(_is_layer(c.module) for c in inner):
            of[call.path] = len(found)
        else:
            of[call.path] = max(len(found) - 1, 0)

    def owner(path: tuple[Any, ...], _: Array) -> int:
        keys = tuple(str(getattr(part, "key", part)) for part in path)
        longest = max((p for p in of if keys[: len(p)] == p), key=len, default=())
        return of.get(longest, 0)

    return jax.tree_util.tree_map_with_path(owner, moment.params)


def names(paths: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Name the layers by their paths, and number repeated calls of the same layer.

    >>> names((("Conv_0",), ("Block_0", "Dense_0"), ("Conv_0",)))
    ('Conv_0', 'Block_0/Dense_0', 'Conv_0 (2)')
    """
    seen: dict[str, int] = {}
    found = []
    for path in paths:
        name = "/".join(path) or "model"
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


def kernels(tree: Any, paths: tuple[tuple[str, ...], ...]) -> list[Array]:
    """Extract the layers' kernels from a tree like the parameters."""
    found = []
    for path in paths:
        at = tree
        for key in path:
            at = at[key]
        found.append(at[KERNEL])
    return found


def per_layer(paths: tuple[tuple[str, ...], ...], values: list[Array]) -> PerLayer:
    """Stack one value for each layer, float32."""
    stacked = jnp.stack([jnp.asarray(value).astype(jnp.float32) for value in values])
    return PerLayer(stacked, names(paths))


def activations(subject: Subject, moment: Moment, at: Place = "inputs") -> dict[str, Array]:
    """Record the activations at a place of the network in training mode: `(N, ..., C)`, float32.

    Raises:
        UserError: nothing is at that place, or a layer is inside a transformation.
    """
    watch = _Watch(_is_norm if at == "norms" else _is_layer)
    with at_each_call(watch):
        loss_of(subject, moment)(moment.params)
    first = 1 if at == "inputs" else 0
    calls, called = watch.calls[first:], names(tuple(call.path for call in watch.calls))[first:]
    if not calls:
        raise UserError(
            f"there are no {at} to look at in this network: it has {len(watch.calls)} "
            f"{'normalisers' if at == 'norms' else 'layers with a kernel'} that its loss calls "
            "(and the first layer's input is the images)"
        )
    found = [call.x if at == "inputs" else call.y for call in calls]
    if any(call.trace is not _trace() for call in calls):
        raise UserError(
            f"some of the layers {', '.join(called)} are inside nn.remat, nn.scan, nn.vmap or "
            "nn.jit, where their activations cannot be recorded; remove the transformation for "
            "this probe (gradients and updates can be measured with it)"
        )
    found = [value.astype(jnp.float32) for value in found]
    return dict(zip(called, found, strict=True))


def inputs_and_gradients(subject: Subject, moment: Moment) -> dict[str, tuple[Array, Array]]:
    """Record the input of each layer but the first, and the loss's gradient with respect to it."""
    now = activations(subject, moment, "inputs")

    def loss(added: list[Array]) -> Array:
        def put(number: int, x: Array) -> Array:
            return x if number == 0 else x + added[number - 1].astype(x.dtype)

        with at_each_call(_Watch(_is_layer, before=put)):
            return loss_of(subject, moment)(moment.params)

    zeros = _zeros_like(list(now.values()))
    gradients = zeros if _SHAPES_ALONE.get() else jax.grad(loss)(zeros)
    return {name: (x, g) for (name, x), g in zip(now.items(), gradients, strict=True)}


def require_true_gradient(subject: Subject, moment: Moment, who: str) -> None:
    """Refuse a normaliser whose backward pass is not the derivative of its forward pass.

    Raises:
        UserError: the network has such a normaliser.
    """
    watch = _Watch(_is_norm)
    with at_each_call(watch):
        jax.eval_shape(loss_of(subject, moment), moment.params)
    for call in watch.calls:
        held = cast(Any, getattr(call.module, "normaliser", None))
        if held is not None and held.facts.backward_state:
            raise UserError(
                f"{who} needs the derivative of the gradient, but the backward pass of "
                f"{type(held).__name__} has a memory and is not the derivative of its forward "
                "pass, so no Hessian describes its training; leave this probe out for it"
            )
