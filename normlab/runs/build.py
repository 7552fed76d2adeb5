"""From words to objects: the only file that turns a resolved config into calls."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from normlab.catalogue import AUGMENTATIONS, DATA, MODELS, NORMS
from normlab.core import Normaliser
from normlab.errors import FieldError, UserError
from normlab.models.slots import NORM_STATE
from normlab.runs.optax_names import OPTIMIZERS, SCHEDULES
from normlab.runs.schema import as_argument
from normlab.training.optimizer import RoleMask, clipped, decayed
from normlab.training.program import Program
from normlab.training.recipe import Recipe

MASKS = ("mask", "weight_decay_mask")
"""What optax's optimisers call the choice of parameters that their own weight decay touches."""


class SectionError(UserError):
    """Sections that are right by themselves but cannot work together; `section` is to be mended."""

    def __init__(self, section: str, field: str | None, message: str):
        super().__init__(message)
        self.section, self.field = section, field


@dataclass(frozen=True)
class Call:
    """A named call of a resolved config: what to call, and with which arguments."""

    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, section: dict[str, Any], *skip: str) -> "Call":
        """Split a section into its name and its arguments; lists become tuples, to be hashable."""
        arguments = {
            key: as_argument(value) for key, value in section.items() if key not in ("name", *skip)
        }
        return cls(section["name"], arguments)


def dataset(sections: dict[str, Any]) -> Any:
    """The description of the data, not loaded."""
    call = Call.of(sections["data"], "augment")
    return DATA.load(call.name)(**call.arguments)


def normaliser(sections: dict[str, Any]) -> Normaliser:
    """The normaliser."""
    call = Call.of(sections["norm"])
    return NORMS.load(call.name)(**call.arguments)


def model(sections: dict[str, Any]) -> nn.Module:
    """The network around it."""
    call = Call.of(sections["model"])
    classes = dataset(sections).outline().classes
    return MODELS.load(call.name)(norm=normaliser(sections), classes=classes, **call.arguments)


def optimizer(sections: dict[str, Any]) -> optax.GradientTransformation:
    """The optimiser, with its schedule, the weight decay and the clip."""
    call = Call.of(sections["optimizer"])
    function = OPTIMIZERS.load(call.name)
    accepted = inspect.signature(function).parameters
    arguments = dict(call.arguments)
    if sections["schedule"] is not None:
        schedule = Call.of(sections["schedule"])
        arguments["learning_rate"] = SCHEDULES.load(schedule.name)(**schedule.arguments)
    decay = sections["decay"]
    roles = tuple(decay["roles"])
    for mask in MASKS:
        if mask in accepted:
            arguments[mask] = RoleMask(roles)
    return clipped(decayed(function(**arguments), decay["rate"], roles), recipe(sections).clip)


def recipe(sections: dict[str, Any]) -> Recipe:
    """The settings of the training loop."""
    return Recipe(**sections["train"])


def program(sections: dict[str, Any]) -> Program:
    """Everything that is compiled, for any seed."""
    calls = [Call.of(call) for call in sections["data"]["augment"]]
    augmentations = tuple(AUGMENTATIONS.load(call.name)(**call.arguments) for call in calls)
    return Program(model(sections), optimizer(sections), recipe(sections), augmentations)


def needs_learning_rate(name: str) -> bool:
    """Whether an optimiser has no learning rate of its own."""
    parameter = inspect.signature(OPTIMIZERS.load(name)).parameters["learning_rate"]
    return parameter.default is inspect.Parameter.empty


def total_steps(sections: dict[str, Any]) -> int:
    """How many optimiser steps a run takes."""
    settings = recipe(sections)
    return settings.epochs * settings.steps_per_epoch(dataset(sections).outline().train_examples)


def parameter_shapes(sections: dict[str, Any]) -> Any:
    """The tree of the model's parameters, as shapes: nothing is computed."""
    return _variable_shapes(model(sections), sections)["params"]


def check_shapes(sections: dict[str, Any]) -> None:
    """Trace one training batch through the model, as shapes.

    Raises:
        SectionError: the normaliser or the model cannot take what the other sections give it.
    """
    settings = recipe(sections)
    norm = normaliser(sections)
    ghosts = getattr(norm, "norm_batch", 0)
    if settings.accumulate > 1 and norm.facts.uses_batch and ghosts is None:
        part = settings.batch_size // settings.accumulate
        raise SectionError(
            "norm",
            None,
            f"with train.accumulate={settings.accumulate} each microbatch of {part} examples is "
            f"normalised by itself; say so with norm_batch: {part} (or a divisor of it)",
        )
    try:
        total_steps(sections)
    except UserError as error:
        raise SectionError("train", "batch_size", str(error)) from None
    network = model(sections)
    try:
        variables = _variable_shapes(network, sections)
        _trace_training(network, variables, sections)
    except FieldError as error:
        section = "norm" if hasattr(norm, error.field) else "model"
        raise SectionError(section, error.field, str(error)) from None
    except UserError as error:
        raise SectionError("norm", None, str(error)) from None


def _images(sections: dict[str, Any], count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *dataset(sections).outline().image_shape), jnp.float32)


def _variable_shapes(network: nn.Module, sections: dict[str, Any]) -> Any:
    start = partial(network.init, train=False)
    return jax.eval_shape(start, jax.random.key(0), _images(sections, 1))


def _trace_training(network: nn.Module, variables: Any, sections: dict[str, Any]) -> None:
    settings = recipe(sections)
    images = _images(sections, settings.batch_size // settings.accumulate)
    jax.eval_shape(partial(network.apply, train=True, mutable=[NORM_STATE]), variables, images)
