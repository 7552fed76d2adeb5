"""Any normaliser as a Flax linen layer, and in the place of the layers of a linen model."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from normlab.adapters.names import flax_name, require_forward_state
from normlab.core import Array, Normaliser
from normlab.errors import UserError

BATCH_STATS = "batch_stats"


class Norm(nn.Module):
    """A normaliser with the habits of `flax.linen.BatchNorm`.

    Its parameters stand under their own names (`scale`, `bias`), its state in the collection
    `batch_stats` under Flax's (`mean`, `var`), so `mutable=["batch_stats"]` and checkpoints work as
    with Flax's own layers. The state never moves in `init`.

    Attributes:
        normaliser: which one.
        use_running_average: whether statistics come from the state; here or in the call, as in
            Flax. A normaliser without a state needs neither.

    >>> import jax, jax.numpy as jnp
    >>> from normlab.norms import BatchNorm
    >>> layer = Norm(BatchNorm(momentum=0.5), use_running_average=False)
    >>> x = jnp.array([[1.0], [3.0]])
    >>> variables = layer.init(jax.random.key(0), x)
    >>> y, moved = layer.apply(variables, x, mutable=["batch_stats"])
    >>> [f"{value:.2f}" for value in y.ravel()], moved["batch_stats"]["mean"].tolist()
    (['-1.00', '1.00'], [1.0])
    """

    normaliser: Normaliser
    use_running_average: bool | None = None

    @nn.compact
    def __call__(
        self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None
    ) -> Array:
        """`x` normalised, in its own shape and dtype; `mask` as in `normlab.core`."""
        require_forward_state(self.normaliser)
        params, state = self.normaliser.init(x.shape[-1])
        params = {name: self.param(name, lambda _, v=leaf: v) for name, leaf in params.items()}
        if not state:
            return self.normaliser.apply(params, {}, x, train=True, mask=mask)[0]
        stands = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        variables = {
            name: self.variable(BATCH_STATS, flax_name(name), lambda v=leaf: v)
            for name, leaf in state.items()
        }
        held = {name: variable.value for name, variable in variables.items()}
        y, moved = self.normaliser.apply(params, held, x, train=not stands, mask=mask)
        if not stands and not self.is_initializing() and self.is_mutable_collection(BATCH_STATS):
            for name, variable in variables.items():
                variable.value = moved[name]
        return y


class _Swapped(nn.Module):
    model: nn.Module
    old: tuple[type[nn.Module], ...]
    new: Callable[[nn.Module], Normaliser | None]

    def setup(self) -> None:
        nn.share_scope(self, self.model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(self._instead):
            return self.model(*args, **kwargs)

    def changes(self, *args: Any, **kwargs: Any) -> dict[str, Normaliser]:
        """The path of each layer that a call with these arguments replaces, and by what."""
        found: dict[str, Normaliser] = {}

        def note(layer: nn.Module) -> Normaliser | None:
            normaliser = self.new(layer)
            if normaliser is not None:
                found["/".join(layer.path)] = normaliser
            return normaliser

        noting = self.clone(new=note)
        jax.eval_shape(lambda: noting.init(jax.random.key(0), *args, **kwargs))
        return found

    def _instead(
        self,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        layer = context.module
        if not isinstance(layer, self.old) or context.method_name != "__call__":
            return call(*args, **kwargs)
        normaliser = self.new(layer)
        if normaliser is None:
            return call(*args, **kwargs)
        given = dict(zip(("x", "use_running_average"), args, strict=False)) | kwargs
        stands = given.get("use_running_average")
        stands = getattr(layer, "use_running_average", None) if stands is None else stands
        if stands is None and normaliser.init(given["x"].shape[-1])[1]:
            raise UserError(
                f"{'/'.join(layer.path)}: {type(layer).__name__} does not know training from "
                f"evaluation, which {type(normaliser).__name__} needs; swap layers that have "
                "use_running_average, or take a normaliser without a state"
            )
        norm = Norm(normaliser, stands, parent=layer.scope)
        return norm(given["x"], mask=given.get("mask"))


def swap(
    model: nn.Module,
    old: type[nn.Module] | tuple[type[nn.Module], ...],
    new: Normaliser | Callable[[nn.Module], Normaliser | None],
) -> _Swapped:
    """A model that is `model` with every layer of a type replaced.

    Layers are replaced as they are called, so it does not matter how the model makes them. The
    variables have the paths that they had. What a call changes, `swapped.changes(*arguments)`
    tells.

    Args:
        model: any linen module; it stays as it is.
        old: a type of layer, or several.
        new: a normaliser, or a function of a layer that gives one, or None to leave it.

    >>> import jax, jax.numpy as jnp
    >>> from normlab.norms import GroupNorm
    >>> model = nn.Sequential([nn.Dense(8), nn.BatchNorm(use_running_average=False), nn.relu])
    >>> swapped = swap(model, nn.BatchNorm, GroupNorm(groups=2))
    >>> x = jnp.ones((2, 3))
    >>> sorted(swapped.init(jax.random.key(0), x)), swapped.changes(x)
    (['params'], {'layers_1': GroupNorm(eps=1e-05, use_scale=True, use_bias=True, groups=2)})
    """
    layers = old if isinstance(old, tuple) else (old,)
    if hasattr(new, "apply") and not isinstance(new, type):
        normaliser: Any = new

        def choose(layer: nn.Module) -> Normaliser | None:
            return normaliser

        return _Swapped(model, layers, choose)
    return _Swapped(model, layers, new)  # type: ignore[arg-type]
