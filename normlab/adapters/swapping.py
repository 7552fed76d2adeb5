"""Chooses the normaliser that a swap puts in the place of a layer, and reports the swap."""

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from normlab.adapters.flax_axes import canonical
from normlab.adapters.flax_layers import LAYERS
from normlab.core import Normaliser
from normlab.errors import UserError

New = Normaliser | Callable[[Any], Normaliser | None]
"""A normaliser, or a function of the layer that gives one, or None to leave the layer."""

Where = str | tuple[str, ...]
"""A choice among the layers of a type; see `matches`."""

UNCHOSEN = "the function that chooses gave none"
ELSEWHERE = "where leaves it out"


def matches(where: Where | None, path: str, layer: Any) -> bool:
    """Return whether a layer is among those that `where` names; None names all.

    Args:
        where: one pattern or several, with the wildcards `*`, `?` and `[...]`. A layer is among
            them if one matches its path or the name of its class.
        path: the names on the way to the layer, joined by `/`.
        layer: the layer.

    >>> matches("blocks/*/norm1", "blocks/0/norm1", None), matches("stem", "blocks/0/norm1", None)
    (True, False)
    """
    patterns = (where,) if isinstance(where, str) else where
    names = (path, *(base.__name__ for base in type(layer).__mro__[:-1]))
    return patterns is None or any(
        fnmatchcase(name, pattern) for name in names for pattern in patterns
    )


@dataclass
class Swapped:
    """The report of a swap; it prints one layer a line.

    Attributes:
        changed: path of each layer that was replaced -> the normaliser in its place.
        left: path of each normalisation layer that stayed -> the reason.
    """

    changed: dict[str, Normaliser] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"changed  {path}: {normaliser}" for path, normaliser in self.changed.items()]
        return "\n".join(lines + [f"left     {path}: {why}" for path, why in self.left.items()])

    def asks_for(self, path: str, layer: Any, old: tuple[type, ...], where: Where | None) -> bool:
        """Return whether a layer is to be replaced; note why a normalisation layer is not."""
        if not isinstance(layer, old):
            if isinstance(layer, LAYERS):
                self.left[path] = f"{type(layer).__name__} is not among the types to replace"
            return False
        if not matches(where, path, layer):
            self.left[path] = ELSEWHERE
            return False
        return True

    def leave_unchosen(self, path: str) -> None:
        """Note a layer for which the user's function gave no normaliser."""
        self.left[path] = UNCHOSEN

    def require_some(self, old: tuple[type, ...], model: Any) -> None:
        """Raise `UserError` if no layer of the types `old` was met."""
        if not self.changed and UNCHOSEN not in self.left.values():
            if ELSEWHERE in self.left.values():
                raise UserError(f"where leaves out every layer that could be swapped:\n{self}")
            names = dict.fromkeys(cls.__name__ for cls in old)
            raise UserError(
                f"the model has no {' or '.join(names)} to swap; "
                + (f"it has\n{self}" if self.left else f"it is\n{model}")
            )


def as_types(old: Any) -> tuple[type, ...]:
    """Return the types of layers to replace, as a tuple.

    Raises:
        UserError: the argument is something else, such as a layer.
    """
    found = old if isinstance(old, tuple) else (old,)
    if not found or not all(isinstance(one, type) for one in found):
        raise UserError(
            f"the layers to swap are given by their type, such as BatchNorm, or a tuple of types; "
            f"got {old!r}"
        )
    return found


def choose(new: New, layer: Any, ndim: int | None = None) -> Normaliser | None:
    """Return the normaliser for a layer, or None to leave it.

    It takes over the `axis_name` of a layer that has one, so that synchronised statistics stay
    synchronised.

    Args:
        new: the argument of a swap.
        layer: a layer of Flax, or one with such fields.
        ndim: the number of axes of its input, if known.

    Raises:
        UserError: the layer's channels are not last, or `new` gives something else.
    """
    normaliser: Any = new if _is_normaliser(new) else new(layer)  # type: ignore[operator]
    if normaliser is None:
        return None
    if not _is_normaliser(normaliser):
        raise UserError(
            "what comes in the place of a layer is a normaliser, such as GroupNorm(groups=8), or a "
            f"function of the layer that gives one or None; got {normaliser!r}"
        )
    for name in ("axis", "feature_axes"):
        if not hasattr(layer, name):
            continue
        axes = getattr(layer, name)
        axes = (axes,) if isinstance(axes, int) else tuple(axes)
        taken = getattr(normaliser, "feature_axes", (-1,))
        if axes != taken and (ndim is None or canonical(axes, ndim) != canonical(taken, ndim)):
            raise UserError(f"its channels are at {name}={axes}; a normaliser takes them last")
    if normaliser.facts.fuses_activation:
        warnings.warn(
            f"{type(normaliser).__name__} contains the activation, so the one that the model "
            "applies after it is a second: take that out of the model",
            stacklevel=2,
        )
    axis_name = getattr(layer, "axis_name", None)
    if axis_name is not None and getattr(normaliser, "axis_name", axis_name) is None:
        normaliser = dataclasses.replace(normaliser, axis_name=axis_name)
    return normaliser


def refuse(why: dict[str, str]) -> None:
    """Raise `UserError` for layers that cannot be replaced, each with its reason."""
    if why:
        raise UserError(
            "nothing is swapped, as these layers cannot be:\n"
            + "\n".join(f"  {path}: {reason}" for path, reason in why.items())
            + "\nGive a function of the layer in place of the normaliser: for such a layer it may "
            "return another one, or None to leave it"
        )


def _is_normaliser(value: Any) -> bool:
    return hasattr(value, "apply") and hasattr(value, "facts") and not isinstance(value, type)
