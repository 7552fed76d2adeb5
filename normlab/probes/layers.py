"""Looking inside any linen network: what its layers take in and give out, in order of the calls.

A layer is a module with a parameter `kernel` of its own, whatever its type: a convolution, a dense
layer, an attention's projections. What enters one is the activation, for every network alike; what
it gives is the pre-activation. Layers are found by tracing the loss once, which computes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import InterceptorContext

from normlab.adapters import linen as adapted
from normlab.core import Array
from normlab.errors import UserError
from normlab.models import slots
from normlab.probes.contract import Moment, PerLayer, Subject

KERNEL = "kernel"

Place = Literal["inputs", "outputs", "norms"]
"""Where to look: at what enters each layer but the first (whose input are the images), at what
each layer gives, or at what each normaliser gives."""

NORMALISERS = (
    slots.Norm,
    adapted.Norm,
    nn.BatchNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.InstanceNorm,
)


class Call(NamedTuple):
    """One call of a layer or a normaliser, while the loss is traced."""

    path: tuple[str, ...]
    module: nn.Module
    x: Any
    y: Any
    trace: Any


@dataclass
class _Watch:
    """An interceptor that notes calls, and may put something on what passes (`touch`)."""

    wanted: Callable[[nn.Module], bool]
    before: Callable[[int, Array], Array] = lambda number, x: x
    after: Callable[[int, Array], Array] = lambda number, y: y
    calls: list[Call] = field(default_factory=list)
    _within: set[tuple[str, ...]] = field(default_factory=set)

    def __call__(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: InterceptorContext,
    ) -> Any:
        module, path = context.module, tuple(context.module.path)
        # A method that calls its parent class's comes by twice.
        passing = context.method_name != "__call__" or path in self._within
        if passing or not self.wanted(module):
            return call(*args, **kwargs)
        number, x = len(self.calls), None
        if args:
            x = self.before(number, args[0])
            args = (x, *args[1:])
        elif kwargs:
            first = next(iter(kwargs))
            x = self.before(number, kwargs[first])
            kwargs = {**kwargs, first: x}
        self.calls.append(Call(path, module, x, None, _trace()))
        self._within.add(path)
        y = self.after(number, call(*args, **kwargs))
        self._within.remove(path)
        self.calls[number] = self.calls[number]._replace(y=y)
        return y


def _trace() -> Any:
    """The innermost trace: another one inside of nn.remat and its like, whose values stay there."""
    return getattr(jnp.zeros(()), "_trace", None)


def _is_layer(module: nn.Module) -> bool:
    return module.scope is not None and module.scope.has_variable("params", KERNEL)


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMALISERS)


def loss_of(subject: Subject, moment: Moment) -> Callable[[Any], Array]:
    """The training loss as a function of the parameters alone, at this moment's state and batch."""
    state, images, labels = moment.norm_state, moment.images, moment.labels
    return lambda params: subject.loss(params, state, images, labels)[0]


@partial(jax.jit, static_argnums=0)
def loss_and_gradient(subject: Subject, moment: Moment) -> tuple[Array, Any]:
    """The training loss and its gradient with respect to the parameters."""
    return jax.value_and_grad(loss_of(subject, moment))(moment.params)


def gradient_at(subject: Subject, moment: Moment) -> Callable[[Any], tuple[Array, Any]]:
    """`loss_and_gradient` as a function of the parameters; compiled once for each subject."""
    return lambda params: loss_and_gradient(subject, moment._replace(params=params))


def layers(subject: Subject, moment: Moment) -> tuple[tuple[str, ...], ...]:
    """The paths of the layers in the order of their first calls.

    Raises:
        UserError: there are none.
    """
    watch = _Watch(_is_layer)
    with nn.intercept_methods(watch):
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
    """Which layer each parameter goes with: a tree of whole numbers, from 0, like the parameters.

    A layer's own with it; those of a module without layers (a normaliser) with the layer called
    last before it; a module's that contains layers, and is none, with the first of them.
    """
    watch = _Watch(lambda module: True)
    with nn.intercept_methods(watch):
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
    """What layers are called: their paths, and each further call of the same layer by number.

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
    """The layers' kernels, out of the parameters or anything shaped like them."""
    found = []
    for path in paths:
        at = tree
        for key in path:
            at = at[key]
        found.append(at[KERNEL])
    return found


def per_layer(paths: tuple[tuple[str, ...], ...], values: list[Array]) -> PerLayer:
    """One value for each layer, float32."""
    stacked = jnp.stack([jnp.asarray(value).astype(jnp.float32) for value in values])
    return PerLayer(stacked, names(paths))


def seen(subject: Subject, moment: Moment, at: Place = "inputs") -> dict[str, Array]:
    """What passes at a place of the network in training mode: each layer's `(N, ..., C)`, float32.

    Raises:
        UserError: there is nothing at that place, or it stands inside a transformation.
    """
    watch = _Watch(_is_norm if at == "norms" else _is_layer)
    with nn.intercept_methods(watch):
        loss_of(subject, moment)(moment.params)
    first = 1 if at == "inputs" else 0
    calls, called = watch.calls[first:], names(tuple(call.path for call in watch.calls))[first:]
    if not calls:
        raise UserError(
            f"there are no {at} to look at in this network: it has {len(watch.calls)} "
            f"{'normalisers' if at == 'norms' else 'layers with a kernel'} that its loss calls "
            "(and the first layer's input are the images)"
        )
    found = [call.x if at == "inputs" else call.y for call in calls]
    if any(call.trace is not _trace() for call in calls):
        raise UserError(
            f"of the layers {', '.join(called)} some stand inside nn.remat, nn.scan, nn.vmap or "
            "nn.jit, where their activations cannot be looked at; take the transformation away "
            "for the probe (its gradients and updates can be seen)"
        )
    found = [value.astype(jnp.float32) for value in found]
    return dict(zip(called, found, strict=True))


def seen_gradients(subject: Subject, moment: Moment) -> dict[str, tuple[Array, Array]]:
    """What enters each layer but the first, and the gradient of the loss with respect to it."""
    now = seen(subject, moment, "inputs")

    def loss(added: list[Array]) -> Array:
        def put(number: int, x: Array) -> Array:
            return x if number == 0 else x + added[number - 1].astype(x.dtype)

        with nn.intercept_methods(_Watch(_is_layer, before=put)):
            return loss_of(subject, moment)(moment.params)

    gradients = jax.grad(loss)([jnp.zeros_like(x) for x in now.values()])
    return {name: (x, g) for (name, x), g in zip(now.items(), gradients, strict=True)}


def require_true_gradient(subject: Subject, moment: Moment, who: str) -> None:
    """Raise for a normaliser whose backward pass is not the derivative of its forward pass.

    Raises:
        UserError: there is one in the network.
    """
    watch = _Watch(_is_norm)
    with nn.intercept_methods(watch):
        jax.eval_shape(loss_of(subject, moment), moment.params)
    for call in watch.calls:
        held = cast(Any, getattr(call.module, "normaliser", None))
        if held is not None and held.facts.backward_state:
            raise UserError(
                f"{who} needs the derivative of the gradient, but the backward pass of "
                f"{type(held).__name__} has a memory and is no derivative of its forward pass, so "
                "the loss has no Hessian that training would feel; leave this probe out for it"
            )
