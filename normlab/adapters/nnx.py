"""Any normaliser as a Flax NNX layer, and in the place of the layers of an NNX model."""

from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from normlab.adapters.names import flax_name, require_forward_state
from normlab.core import Array, Normaliser
from normlab.errors import UserError


class Norm(nnx.Module):
    """A normaliser with the habits of `flax.nnx.BatchNorm`.

    Its parameters are `nnx.Param` under their own names (`scale`, `bias`), its state `nnx.BatchStat`
    under Flax's (`mean`, `var`). `model.train()` and `model.eval()` reach it.

    Args:
        normaliser: which one.
        num_features: the channels of its input.
        use_running_average: whether statistics come from the state.
        rngs: taken and not used, as nothing here is drawn.

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
        use_running_average: bool = False,
        rngs: nnx.Rngs | None = None,
    ):
        require_forward_state(normaliser)
        params, state = normaliser.init(num_features)
        for name, leaf in params.items():
            setattr(self, name, nnx.Param(leaf))
        for name, leaf in state.items():
            setattr(self, flax_name(name), nnx.BatchStat(leaf))
        self.normaliser = normaliser
        self.num_features = num_features
        self.use_running_average = use_running_average

    def __call__(
        self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None
    ) -> Array:
        """`x` normalised, in its own shape and dtype; `mask` as in `normlab.core`."""
        stands = self.use_running_average if use_running_average is None else use_running_average
        names, state_names = self.normaliser.init(self.num_features)
        params = {name: getattr(self, name)[...] for name in names}
        state = {name: getattr(self, flax_name(name))[...] for name in state_names}
        y, moved = self.normaliser.apply(params, state, x, train=not stands, mask=mask)
        if not stands:
            for name in state:
                getattr(self, flax_name(name))[...] = moved[name]
        return y


@dataclass
class Swapped:
    """What `swap` did.

    Attributes:
        changed: path of each layer that was replaced -> the normaliser in its place.
        left: path of each layer that stayed -> why.
    """

    changed: dict[str, Normaliser] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"changed  {path}: {normaliser}" for path, normaliser in self.changed.items()]
        return "\n".join(lines + [f"left     {path}: {why}" for path, why in self.left.items()])


def swap(
    model: nnx.Module,
    old: type[nnx.Module] | tuple[type[nnx.Module], ...],
    new: Normaliser | Callable[[Any], Normaliser | None],
) -> Swapped:
    """Replace every layer of a type in a model, in place.

    A scale and bias of the same shape are carried over; running statistics are not.

    Args:
        model: any NNX module that holds such layers as attributes, in lists or in dictionaries.
        old: a type of layer with `num_features`, or one of Flax's normalisers; or several.
        new: a normaliser, or a function of a layer that gives one, or None to leave it.

    Returns:
        Every layer that was changed, and every one that was left and why.

    Raises:
        UserError: there is no such layer, or `model` itself is one.

    >>> from flax import nnx
    >>> from normlab.norms import GroupNorm
    >>> rngs = nnx.Rngs(0)
    >>> model = nnx.Sequential(nnx.Linear(2, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs))
    >>> print(swap(model, nnx.BatchNorm, GroupNorm(groups=2)))
    changed  layers/1: GroupNorm(eps=1e-05, use_scale=True, use_bias=True, groups=2)
    """
    if isinstance(model, old):
        raise UserError(
            f"the model is itself a {type(model).__name__}: make a normlab.adapters.nnx.Norm"
        )
    report, made = Swapped(), {}
    for path, layer, put in list(_layers(model, old, (), set())):
        name = "/".join(map(str, path))
        normaliser: Any = new if hasattr(new, "apply") else new(layer)  # type: ignore[operator]
        if normaliser is None:
            report.left[name] = "the function that chooses gave none"
            continue
        try:
            if id(layer) not in made:
                made[id(layer)] = _like(layer, normaliser)
        except UserError as error:
            report.left[name] = str(error)
            continue
        put(made[id(layer)])
        report.changed[name] = normaliser
    if not report.changed and not report.left:
        names = [one.__name__ for one in (old if isinstance(old, tuple) else (old,))]
        raise UserError(f"the model holds no {' or '.join(names)}; it is:\n{model}")
    return report


def _like(layer: Any, normaliser: Normaliser) -> Norm:
    norm = Norm(
        normaliser,
        _features(layer),
        use_running_average=getattr(layer, "use_running_average", False),
    )
    for name in ("scale", "bias"):
        values, place = getattr(layer, name, None), getattr(norm, name, None)
        if values is not None and place is not None and values.shape == place.shape:
            place[...] = values[...]
    return norm


def _features(layer: Any) -> int:
    if hasattr(layer, "num_features"):
        return layer.num_features
    for name in ("scale", "bias"):
        values = getattr(layer, name, None)
        if values is not None:
            return values.shape[-1]
    raise UserError(
        f"{type(layer).__name__} tells its number of channels neither by num_features nor by a "
        "scale or bias"
    )


Put = Callable[[Any], None]


def _layers(
    holder: Any, old: Any, path: tuple[Any, ...], seen: set[int]
) -> Iterator[tuple[tuple[Any, ...], Any, Put]]:
    """Every place at which a layer of type `old` hangs, with a function that fills the place."""
    if id(holder) in seen:
        return
    seen.add(id(holder))
    for key, value, put in _items(holder):
        if isinstance(value, old):
            yield (*path, key), value, put
        elif isinstance(value, nnx.Module | MutableSequence | MutableMapping | tuple):
            yield from _layers(value, old, (*path, key), seen)


def _items(holder: Any) -> list[tuple[Any, Any, Put]]:
    def by_item(key: Any) -> Put:
        return lambda value: holder.__setitem__(key, value)

    def by_name(key: str) -> Put:
        return lambda value: setattr(holder, key, value)

    if isinstance(holder, MutableMapping):
        return [(key, value, by_item(key)) for key, value in holder.items()]
    if isinstance(holder, MutableSequence | tuple):
        return [(key, value, by_item(key)) for key, value in enumerate(holder)]
    names = [name for name in vars(holder) if not name.startswith("_")]
    return [(name, getattr(holder, name), by_name(name)) for name in names]
