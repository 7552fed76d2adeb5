"""Puts any normaliser in the place of a linen model's layers; `Norm` is one such layer."""

import inspect
import itertools
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from normlab.adapters.flax_axes import features_of
from normlab.adapters.intercepting import Meet, at_each_call
from normlab.adapters.linen_norm import Norm as Norm
from normlab.adapters.modes import Around
from normlab.adapters.swapping import New, Swapped, Where, as_types, choose, refuse
from normlab.core import Array
from normlab.errors import UserError

KEPT = ("dtype", "param_dtype", "scale_init", "bias_init")
"""Fields of a layer that its replacement takes over."""


class _Put(Norm):
    """A layer that a swap has put in; a swap does not replace it again."""


class SwappedModel(Around):
    """A linen model in whose calls layers of some types are replaced; `swap` makes it.

    Attributes:
        old: the types of layers.
        new: the normalisers that come in their place.
        where: the layers among these to replace.
        train: whether layers train that cannot tell, such as a layer norm; None for unknown.
    """

    old: tuple[type[nn.Module], ...]
    new: New
    where: Where | None = None
    train: bool | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self._call("__call__", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        """Return a method of the model, so that `apply(..., method="encode")` is swapped too."""
        model = self.__dict__.get("model")
        if name.startswith("_") or not callable(getattr(type(model), name, None)):
            return super().__getattr__(name)

        def method(self: SwappedModel, *args: Any, **kwargs: Any) -> Any:
            return self._call(name, args, kwargs)

        return types.MethodType(method, self)

    def report(self, *args: Any, **kwargs: Any) -> Swapped:
        """Report what a call with these arguments replaces and leaves; nothing is computed.

        Raises:
            UserError: the call has no such layer, or one that cannot be replaced.
        """
        found, why = Swapped(), {}
        with at_each_call(_replacing(self, found, why)):
            jax.eval_shape(lambda: self.model.init(jax.random.key(0), *args, **kwargs))
        refuse(why)
        found.require_some(self.old, self.model)
        return found

    def carry(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the variables of the swapped model, from (trained) ones of the original model.

        The layers that `report` calls changed keep their leaves of the same name and shape, such as
        scale, bias and running statistics. They lose their other leaves, and further leaves of the
        new normaliser start anew. Everything else stays as it is.

        Args:
            variables: the variables of the model: `params`, `batch_stats` and any others.
            args: as for a call of the model; only their shapes matter.
            kwargs: likewise.

        Raises:
            UserError: as `report`, or the variables are not those of the model.
        """
        changes = self.report(*args, **kwargs).changed
        roots = [tuple(path.split("/")) if path else () for path in changes]

        def changed(path: tuple[str, ...]) -> bool:
            return any(path[1 : 1 + len(root)] == root for root in roots)

        def init() -> dict[Any, Any]:
            return flatten_dict(unfreeze(self.init(jax.random.key(0), *args, **kwargs)))

        old, new = flatten_dict(unfreeze(variables)), jax.eval_shape(init)
        lack = ["/".join(path) for path in new if path not in old and not changed(path)]
        if lack:
            raise UserError(f"these are not the model's variables: they lack {', '.join(lack)}")
        kept = {
            path: leaf
            for path, leaf in old.items()
            if not changed(path) or (path in new and _shapes(leaf) == _shapes(new[path]))
        }
        fresh = jax.jit(lambda: {p: leaf for p, leaf in init().items() if p not in kept})
        return unflatten_dict(kept | fresh())

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with at_each_call(_replacing(self)):
            return getattr(self.model, name)(*args, **kwargs)


def swap(model: nn.Module, old: Any, new: New, where: Where | None = None) -> SwappedModel:
    """Return `model` with every layer of a type replaced.

    Layers are replaced when they are called, so it does not matter how the model makes them, even
    under `nn.scan`, `nn.remat` or `nn.vmap`. Paths of variables stay as they were; so do the
    layers' `use_running_average`, masks, `dtype`, `param_dtype`, initialisers and `axis_name`.
    `swapped.report(*arguments)` tells what a call changes. `swapped.carry(variables, *arguments)`
    turns a trained model's variables into those of the swapped model.

    Args:
        model: any linen module; it stays as it is.
        old: a type of layer, or a tuple of types.
        new: a normaliser, or a function of a layer that gives one, or None to leave it.
        where: one pattern or several for the paths or classes of the layers to replace, such as
            `"blocks/*"` or `("stem/*", "LayerNorm")`; None for all.

    Raises:
        UserError: a call meets a layer that cannot be replaced; it gives the path and the reason.

    >>> import jax, jax.numpy as jnp
    >>> from normlab.norms import RMSNorm
    >>> model = nn.Sequential([nn.Dense(8), nn.BatchNorm(use_running_average=False), nn.relu])
    >>> swapped = swap(model, nn.BatchNorm, RMSNorm())
    >>> x = jnp.ones((2, 3))
    >>> print(swapped.report(x))
    changed  layers_1: RMSNorm(eps=1e-05, use_scale=True, use_bias=False, zero_centred=False)
    >>> sorted(swapped.init(jax.random.key(0), x)), sorted(model.init(jax.random.key(0), x))
    (['params'], ['batch_stats', 'params'])
    """
    return SwappedModel(model, as_types(old), new, where)


def _replacing(
    swapped: SwappedModel, found: Swapped | None = None, why: dict[str, str] | None = None
) -> Meet:
    """Return a function that calls the normaliser of `swapped.new` in the place of a layer.

    It notes in `found` each replaced layer, and in `why` each one that cannot be replaced. Without
    `why` the latter is an error.
    """
    old, new, where, train = swapped.old, swapped.new, swapped.where, swapped.train
    stands_if_unknown = None if train is None else not train
    found = found or Swapped()

    def instead(layer: nn.Module, call: Any, args: Any, kwargs: Any) -> Any:
        path = "/".join(layer.path)
        if isinstance(layer, _Put) or not found.asks_for(path, layer, old, where):
            return call(*args, **kwargs)
        given = inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs).arguments
        _, x = itertools.islice(given.values(), 2)
        try:
            put = _put(layer, new, x, given.get("use_running_average"), stands_if_unknown)
        except UserError as error:
            if why is None:
                raise UserError(f"{path}: {error}") from error
            why[path] = str(error)
            return call(*args, **kwargs)
        if put is None:
            found.leave_unchosen(path)
            return call(*args, **kwargs)
        found.changed[path] = put.normaliser
        return put(x, mask=given.get("mask"))

    return instead


def _put(
    layer: Any, new: New, x: Array, stands: bool | None, if_unknown: bool | None
) -> _Put | None:
    normaliser = choose(new, layer, x.ndim)
    if normaliser is None:
        return None
    if stands is None:
        stands = getattr(layer, "use_running_average", None)
    if stands is None:
        stands = if_unknown
    if normaliser.init(features_of(normaliser, x.shape))[1] and stands is None:
        raise UserError(
            f"{type(layer).__name__} does not know training from evaluation, which "
            f"{type(normaliser).__name__} needs; swap layers that have use_running_average, or "
            "take a normaliser without a state"
        )
    fields = {name: getattr(layer, name) for name in KEPT if hasattr(layer, name)}
    return _Put(normaliser, stands, parent=layer.scope, **fields)


def _shapes(leaf: Any) -> list[tuple[int, ...]]:  # a leaf may be boxed, with its partitioning
    return [jnp.shape(array) for array in jax.tree.leaves(leaf)]
