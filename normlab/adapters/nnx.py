"""Any normaliser as a Flax NNX layer, and a swap of the layers of an NNX model."""

import math
import operator
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from normlab.adapters.flax_axes import features_of
from normlab.adapters.flax_names import (
    flax_name,
    mask_of_rank,
    require_names,
    watch_backward_state,
    wide_enough,
)
from normlab.adapters.swapping import New, Swapped, Where, as_types, choose, refuse
from normlab.core import Array, Normaliser, State
from normlab.errors import UserError


class OverwriteWithGradient(nnx.Variable):
    """State that a backward pass leaves; the gradient with respect to it is its next value."""


HOW_TO_TRAIN = (
    "Differentiate with respect to both, with argnums=nnx.DiffState(0, (nnx.Param, "
    "OverwriteWithGradient)), split the result with nnx.split_state(grads, nnx.Param, "
    "OverwriteWithGradient), give the first to the optimiser and the second to nnx.update"
)


class Norm(nnx.Module):
    """A normaliser with the habits of `flax.nnx.BatchNorm`.

    Its parameters are `nnx.Param` under their own names (`scale`, `bias`), its state
    `nnx.BatchStat` under Flax's (`mean`, `var`), so that checkpoints work as with its own layers.
    `model.train()`, `model.eval()` and `nnx.view` reach it. A state that the backward pass leaves
    (`Facts.backward_state`: power norm, moving-average batch norm, online norm) is
    `OverwriteWithGradient`: its gradient is its next value.

    Args:
        normaliser: the normaliser.
        num_features: the number of channels of its input. For a normaliser with several
            `feature_axes` it is the product of their sizes, as in Flax.
        use_running_average: whether statistics come from the state; None leaves it to the call.
        dtype: the dtype of the result; None for the input's. Statistics are float32 or wider.
        param_dtype: the dtype of the parameters.
        scale_init, bias_init: initialisers of those parameters; None for the normaliser's own.
        scale_metadata, bias_metadata: given to the `nnx.Param` of those parameters, such as
            its `out_sharding`.
        promote_dtype: a function of `(x, *parameters)` and `dtype` that casts them. It replaces the
            normaliser's own rule, by which statistics are float32 or wider.
        rngs: the source of one key for each parameter, as in Flax. Later layers then start as they
            would after Flax's layer. Without it no key is drawn.

    >>> import jax.numpy as jnp
    >>> from normlab.norms import BatchNorm
    >>> layer = Norm(BatchNorm(momentum=0.5), 1)
    >>> y = layer(jnp.array([[1.0], [3.0]]))
    >>> [f"{value:.2f}" for value in y.ravel()], layer.mean[...].tolist()
    (['-1.00', '1.00'], [1.0])
    """

    def __init__(
        self,
        normaliser: Normaliser,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        scale_init: Callable[..., Array] | None = None,
        bias_init: Callable[..., Array] | None = None,
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        promote_dtype: Callable[..., Any] | None = None,
        rngs: nnx.Rngs | None = None,
    ):
        params, state = normaliser.init(num_features)
        require_names(normaliser, params, state)
        for name, leaf in params.items():
            key = jax.random.key(0) if rngs is None else rngs.params()
            init = {"scale": scale_init, "bias": bias_init}.get(name)
            value = leaf if init is None else init(key, leaf.shape, param_dtype)
            metadata = {"scale": scale_metadata, "bias": bias_metadata}.get(name, {})
            setattr(self, name, nnx.Param(value.astype(param_dtype), **metadata))
        for name, leaf in state.items():
            backward = name in normaliser.facts.backward_state
            kind = OverwriteWithGradient if backward else nnx.BatchStat
            setattr(self, flax_name(name), kind(leaf))
        self.normaliser = normaliser
        self.num_features = num_features
        self.use_running_average = use_running_average
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.promote_dtype = promote_dtype
        self.param_names = tuple(params)
        self.state_names = tuple(state)

    def __call__(
        self,
        x: Array,
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
        **given: Any,
    ) -> Array:
        """Normalise `x`; the result has its shape.

        Args:
            x: `(N, ..., C)`, any dtype that the normaliser takes.
            use_running_average: as the attribute, which it overrides.
            mask: True where an element counts, as in `normlab.core`. It may have fewer axes than
                `x`, which are then the last ones, as in Flax.
            **given: further arguments of this normaliser, such as a `condition`.

        Raises:
            UserError: neither the call nor the attribute says whether statistics come from the
                state, or the input has another number of channels.
        """
        normaliser, out = self.normaliser, x.dtype if self.dtype is None else self.dtype
        features = features_of(normaliser, x.shape)
        if math.prod(features if isinstance(features, tuple) else (features,)) != self.num_features:
            axes = getattr(normaliser, "feature_axes", (-1,))
            where = "last axis" if axes == (-1,) else f"axes {axes}"
            raise UserError(
                f"an input of shape {x.shape} has {features} channels ({where}), and this "
                f"layer num_features={self.num_features}"
            )
        params = {name: getattr(self, name)[...] for name in self.param_names}
        state: State = {name: getattr(self, flax_name(name))[...] for name in self.state_names}
        if self.promote_dtype is not None:
            x, *cast = self.promote_dtype((x, *params.values()), dtype=self.dtype)
            params = dict(zip(params, cast, strict=True))
        x, mask = wide_enough(x, out), mask_of_rank(x.ndim, mask)
        train = not self._stands(use_running_average)
        if train:
            params, state, x = watch_backward_state(normaliser, params, state, x, HOW_TO_TRAIN)
        y, moved = normaliser.apply(params, state, x, train=train, mask=mask, **given)
        if train:
            for name in set(state) - normaliser.facts.backward_state:
                getattr(self, flax_name(name))[...] = moved[name]
        return y.astype(out)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Set the mode, as `nnx.view` asks.

        Args:
            use_running_average: whether statistics come from the state.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _stands(self, use_running_average: bool | None) -> bool:
        stands = self.use_running_average if use_running_average is None else use_running_average
        if stands is None and self.state_names:
            raise UserError(
                f"{type(self.normaliser).__name__} does not know whether its statistics come from "
                "the batch or from the state: call model.train() or model.eval(), or give "
                "use_running_average to the layer or to its call"
            )
        return bool(stands)


def swap(model: nnx.Module, old: Any, new: New, where: Where | None = None) -> Swapped:
    """Replace every layer of a type in a model, in place, or none if one cannot be.

    Variables of the same name and shape are carried over: scale, bias and running statistics.
    Further variables of the new normaliser start anew. Layers keep their `use_running_average`,
    `dtype` and `axis_name`, and a layer in two places stays one layer. A layer made by `nnx.vmap`
    keeps the leading axis of its variables.

    Make the optimiser after the swap. `swap(nnx.clone(model), ...)` only reports. A function that
    was compiled by `nnx.jit` compiles again by itself.

    Args:
        model: any NNX module that holds such layers in attributes, lists, tuples or dictionaries.
        old: a type of layer with `num_features`, or one of Flax's normalisers; or a tuple of types.
        new: a normaliser, or a function of a layer that gives one, or None to leave it.
        where: one pattern or several for the paths or classes of the layers to replace, such as
            `"blocks/*"` or `("stem/*", "LayerNorm")`; None for all.

    Returns:
        A report of the changed layers, and of the normalisation layers that stayed, with reasons.

    Raises:
        UserError: there is no such layer, `model` itself is one, or one cannot be replaced.

    >>> from flax import nnx
    >>> from normlab.norms import RMSNorm
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(2, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs))
    >>> print(swap(model, nnx.BatchNorm, RMSNorm()))
    changed  layers/1: RMSNorm(eps=1e-05, use_scale=True, use_bias=False, zero_centred=False)
    """
    types = as_types(old)
    if isinstance(model, types):
        raise UserError(
            f"the model is itself a {type(model).__name__}: make a normlab.adapters.nnx.Norm"
        )
    report = Swapped()
    made: dict[int, Norm] = {}
    why: dict[str, str] = {}

    def plan(path: str, layer: Any) -> Any:
        if not report.asks_for(path, layer, types, where):
            return layer
        try:
            normaliser = choose(new, layer)
            if normaliser is None:
                report.leave_unchosen(path)
                return layer
            if id(layer) not in made:
                made[id(layer)] = _like(layer, normaliser)
            report.changed[path] = normaliser
        except UserError as error:
            why[path] = str(error)
        return layer

    visit(model, plan, "", set())
    refuse(why)
    report.require_some(types, model)
    visit(model, lambda _, layer: made.get(id(layer), layer), "", set())
    return report


def _like(layer: Any, normaliser: Normaliser) -> Norm:
    """Make a `Norm` in the place of `layer`, with its variables where name and shape agree."""
    norm = Norm(
        normaliser,
        _features(layer),
        use_running_average=getattr(layer, "use_running_average", False),
        dtype=getattr(layer, "dtype", None),
        param_dtype=getattr(layer, "param_dtype", jnp.float32),
    )
    stack = _stack(layer)
    for name in (*norm.param_names, *map(flax_name, norm.state_names)):
        fresh: Any = getattr(norm, name)
        held: Any = getattr(layer, name, None)
        shape = (*stack, *fresh.shape)
        if isinstance(held, nnx.Variable) and held.shape == shape:
            setattr(norm, name, _moved(held, layer, normaliser) if name == "scale" else held)
        elif stack:
            setattr(norm, name, type(fresh)(jnp.broadcast_to(fresh[...], shape)))
    return norm


def _moved(held: nnx.Variable, layer: Any, normaliser: Normaliser) -> nnx.Variable:
    """Return the scale of a layer as a normaliser keeps it: whole, or less one."""
    before = getattr(getattr(layer, "normaliser", None), "zero_centred", False)
    after = getattr(normaliser, "zero_centred", False)
    return held if before == after else type(held)(held[...] + float(before) - float(after))


def _stack(layer: Any) -> tuple[int, ...]:
    """Return the leading axes that `nnx.vmap` gave the variables of a layer.

    Raises:
        UserError: the last axis of the variables is not that of the channels.
    """
    features = _features(layer)
    for name in ("scale", "bias", "mean", "var"):
        held: Any = getattr(layer, name, None)
        if not isinstance(held, nnx.Variable):
            continue
        if held.shape[-1:] != (features,):
            raise UserError(
                f"its {name} has shape {held.shape}, whose last axis is not its {features} channels"
            )
        return held.shape[:-1]
    return ()


def _features(layer: Any) -> int:
    if hasattr(layer, "num_features"):
        return layer.num_features
    scale: Any = getattr(layer, "scale", None)
    if isinstance(scale, nnx.Variable) and scale.ndim:
        return scale.shape[-1]
    raise UserError(
        f"{type(layer).__name__} tells its number of channels neither by num_features nor by a "
        "scale"
    )


def visit(holder: Any, at: Callable[[str, Any], Any], path: str, seen: set[int]) -> Any:
    """Put `at(path, part)` in the place of every part of `holder`, if possible in place."""
    if isinstance(holder, tuple):
        as_list = list(holder)
        visit(as_list, at, path, seen)
        seen.discard(id(as_list))  # another list may get the id of a list that is gone
        if all(new is part for new, part in zip(as_list, holder, strict=True)):
            return holder
        return type(holder)(*as_list) if hasattr(holder, "_fields") else tuple(as_list)
    if id(holder) in seen or not isinstance(holder, nnx.Pytree | MutableSequence | MutableMapping):
        return holder
    seen.add(id(holder))
    by_key = isinstance(holder, MutableMapping | MutableSequence)
    put: Any = operator.setitem if by_key else setattr
    for key, part in parts_of(holder).items():
        name = f"{path}/{key}" if path else str(key)
        new = visit(at(name, part), at, name, seen)
        if new is not part:
            put(holder, key, new)
    return holder


def parts_of(holder: Any) -> dict[Any, Any]:
    """Return the parts of a module, list, tuple or dictionary by key; empty for anything else."""
    if isinstance(holder, Mapping):
        return dict(holder)
    if isinstance(holder, MutableSequence | tuple):
        return dict(enumerate(holder))
    if isinstance(holder, nnx.Pytree):
        return {k: part for k, part in vars(holder).items() if not k.startswith("_pytree__")}
    return {}
