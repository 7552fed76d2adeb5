"""Translates layers of other libraries, with their defaults and the meaning of their arguments.

    dialect("torch").batch_norm(momentum=0.1)

means torch's `BatchNorm2d(momentum=0.1)` and returns the description `BatchNorm(momentum=0.9,
eps=1e-05, unbiased_running_variance=True)`. Arguments have normlab's names, the library's meaning
and the library's defaults.

A dialect covers conventions, not rounding: statistics are float32 or wider for every dialect. If no
field of a description expresses what a library does, the layer's `notes` say so, under the number
of the difference in docs/conventions.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from normlab.catalogue import KERNELS, NORMS
from normlab.core import KernelTransform, Normaliser
from normlab.dialects.tables import LAYERS, Layer
from normlab.errors import FieldError, UserError, did_you_mean


@dataclass(frozen=True)
class Dialect:
    """The layers of a library; `dialect("torch").layer_norm(eps=1e-6)` makes one of them.

    Attributes:
        name: the library's name.
        layers: the library's layer for each normaliser.
        rate_of_new: whether `momentum` is the weight of the new value instead of the old one.
    """

    name: str
    layers: Mapping[str, Layer]
    rate_of_new: bool = False

    def layer(self, normaliser: str) -> Layer:
        """Return the library's layer for a normaliser.

        Raises:
            UserError: the library has none; the message lists those that it has.
        """
        if normaliser not in self.layers:
            known = ", ".join(self.layers)
            raise UserError(
                f"the dialect {self.name} has no {normaliser}; it has {known}. "
                "Without 'dialect', normlab's own is meant"
            )
        return self.layers[normaliser]

    def translate(self, normaliser: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Translate a layer and its arguments into a name and fields of the catalogue.

        Raises:
            UserError: the library has no such layer.
            FieldError: an argument is unknown, missing, or contradicts another.

        >>> dialect("torch").translate("batch_norm", {"momentum": 0.3})[1]["momentum"]
        0.7
        """
        layer = self.layer(normaliser)
        _check(self.name, normaliser, layer, given)
        fields = {**layer.defaults, **given}
        entry = layer.entry or normaliser
        if self.rate_of_new and "momentum" in fields:
            rate = fields["momentum"]
            if rate is None and entry == "batch_norm":  # all batches have equal weight
                entry, fields["momentum"] = "debiased_batch_norm", 1.0
            elif isinstance(rate, float | int) and not isinstance(rate, bool):
                fields["momentum"] = float(1 - Decimal(str(rate)))  # 0.3 becomes 0.7, not 0.699...
        return entry, fields

    def __getattr__(self, normaliser: str) -> Callable[..., Normaliser | KernelTransform]:
        if normaliser not in self.layers:
            raise AttributeError(f"the dialect {self.name} has no {normaliser}")

        def make(**given: Any) -> Normaliser | KernelTransform:
            entry, fields = self.translate(normaliser, given)
            return entry_class(entry)(**fields)

        return make

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.layers]


def dialect(name: str) -> Dialect:
    """Return the dialect of a library.

    Raises:
        UserError: no dialect has that name.

    >>> dialect("keras").batch_norm().eps, dialect("flax").batch_norm().eps
    (0.001, 1e-05)
    """
    if name not in DIALECTS:
        raise UserError(f"no dialect is called '{name}'; {did_you_mean(name, DIALECTS)}")
    return DIALECTS[name]


def entry_class(name: str) -> Any:
    """Load the normaliser or kernel transform of the catalogue called `name`."""
    return (KERNELS if name in KERNELS.entries() else NORMS).load(name)


def dialects_of(normaliser: str) -> list[Dialect]:
    """Return the dialects that have a layer for a normaliser.

    >>> [dialect.name for dialect in dialects_of("instance_norm")]
    ['flax', 'haiku', 'timm', 'torch']
    """
    return [spoken for spoken in DIALECTS.values() if normaliser in spoken.layers]


def _check(library: str, normaliser: str, layer: Layer, given: Mapping[str, Any]) -> None:
    own_name = {argument: name for name, argument in layer.arguments.items()}
    for name in given:
        if name in layer.arguments:
            continue
        if name in own_name:
            hint = f"it is called '{own_name[name]}' here, whatever the dialect"
        else:
            hint = f"it has {', '.join(layer.arguments)}; `normlab explain {normaliser} --dialect "
            hint += f"{library}` shows the fields that stand for it, to write without 'dialect'"
        message = f"{layer.theirs} of {library} has no argument '{name}'; {hint}"
        raise FieldError(name, message)
    for name in layer.required:
        if name not in given:
            message = f"{layer.theirs} of {library} has no default for '{name}': give one"
            raise FieldError(name, message)
    scale, bias = ({**layer.defaults, **given}.get(n, True) for n in ("use_scale", "use_bias"))
    switch = layer.arguments.get("use_scale")
    if switch is not None and layer.arguments.get("use_bias") == switch and scale != bias:
        message = f"{layer.theirs} of {library} has one switch, {switch}, for scale and bias: "
        raise FieldError(_first(given), message + "give 'use_scale' and 'use_bias' alike")
    if layer.bias_needs_scale and bias and not scale:
        message = f"{layer.theirs} of {library} has no bias without a scale: give 'use_bias: false'"
        raise FieldError("use_scale", message)


def _first(given: Mapping[str, Any]) -> str:
    return next(name for name in given if name in ("use_scale", "use_bias"))


RATE_OF_NEW = ("timm", "torch")

DIALECTS = {name: Dialect(name, layers, name in RATE_OF_NEW) for name, layers in LAYERS.items()}
