"""Freezes the statistics of batch norm, in training too."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from flax import nnx

from normlab.adapters.flax_layers import like_flax
from normlab.adapters.intercepting import at_each_call
from normlab.adapters.linen_places import evaluate, held, input_of, place_of
from normlab.adapters.modes import Around
from normlab.adapters.nnx import Norm, swap
from normlab.adapters.nnx_parts import copied
from normlab.core import Normaliser
from normlab.errors import UserError
from normlab.models.slots import is_ours


def freeze(model: Any) -> Any:
    """Return the same model or normaliser with statistics that no training step moves.

    Parameters and statistics stay where they are, so the frozen model takes the variables of the
    original. Scale and bias still learn; to hold them too, leave them out of the optimiser. Unlike
    in Keras, a layer with frozen parameters does not freeze its statistics.

    Args:
        model: one of four kinds. A normaliser gives its frozen counterpart. A model of this library
            gets that in every slot. In a linen module every batch norm of Flax and every
            `normlab.adapters.linen.Norm` with a state evaluates, whatever the call says. An NNX
            module is copied, and the copy has the frozen layers.

    Raises:
        UserError: the normaliser has no frozen counterpart.

    >>> from normlab.norms import BatchNorm
    >>> freeze(BatchNorm(momentum=0.99, eps=1e-3))
    FrozenBatchNorm(eps=0.001, use_scale=True, use_bias=True, zero_centred=False)
    """
    if isinstance(model, nnx.Module):
        new = copied(model)
        swap(new, (nnx.BatchNorm, Norm), _frozen_layer)
        return new
    if not isinstance(model, nn.Module):
        return _frozen(model)
    if is_ours(model):
        norm: Any = getattr(model, "norm", None)
        return model.clone(norm=_frozen(norm))
    return _Frozen(model)


def _frozen(normaliser: Any) -> Normaliser:
    frozen = getattr(normaliser, "frozen", None)
    if frozen is None:
        raise UserError(
            f"{type(normaliser).__name__} has no frozen counterpart: a normaliser has one if "
            "it has a method `frozen()` that returns it, as batch normalisation does"
        )
    return frozen()


def _frozen_layer(layer: Any) -> Normaliser | None:
    normaliser = layer.normaliser if isinstance(layer, Norm) else like_flax(layer)
    keeps = not isinstance(layer, Norm) or layer.state_names
    return _frozen(normaliser) if keeps else None


class _Frozen(Around):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with at_each_call(_stand):
            return self.model(*args, **kwargs)


def _stand(
    module: nn.Module, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    place = place_of(module)
    if place is None or not (held(module, place) or module.is_initializing()):
        return call(*args, **kwargs)
    return evaluate(module, call, *input_of(args, kwargs))
