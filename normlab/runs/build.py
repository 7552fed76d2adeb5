"""From words to objects: the only file that turns a resolved config into calls."""

import inspect
import sys
import traceback
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from normlab.catalogue import AUGMENTATIONS, DATA, KERNELS, MODELS, NORMS, PROBES, snake_case
from normlab.core import KernelTransform, Normaliser
from normlab.data.dataset import Dataset, Outline
from normlab.errors import FieldError, KernelError, UserError
from normlab.models.slots import NORM_STATE
from normlab.probes.contract import Probe
from normlab.runs.optax_names import OPTIMIZERS, SCHEDULES
from normlab.runs.schema import COMMON_TO_DATA, as_argument
from normlab.training.optimizer import RoleMask, as_told, decayed
from normlab.training.program import Program
from normlab.training.rates import rated
from normlab.training.recipe import Recipe

MASKS = ("mask", "weight_decay_mask")
"""What optax's optimisers call the choice of parameters that their weight decay touches."""

MOST_STEPS = 2**31 - 1
"""What the step counter, an int32, can hold."""


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


def outline(sections: dict[str, Any]) -> Outline:
    """The sizes of the data, which are not loaded for it; `train_examples` less validation."""
    found: Outline = _described(sections).outline()
    return found.validated(sections["data"]["validation"])


def dataset(sections: dict[str, Any]) -> Dataset:
    """The data, loaded."""
    found: Dataset = _described(sections).load()
    return found.validated(sections["data"]["validation"])


def _described(sections: dict[str, Any]) -> Any:
    call = Call.of(sections["data"], *COMMON_TO_DATA)
    return DATA.load(call.name)(**call.arguments)


def normaliser(sections: dict[str, Any]) -> Normaliser:
    """The normaliser."""
    call = Call.of(sections["norm"])
    return NORMS.load(call.name)(**call.arguments)


def kernel_transform(sections: dict[str, Any]) -> KernelTransform | None:
    """The kernel transform, if there is one."""
    if sections.get("kernel") is None:
        return None
    call = Call.of(sections["kernel"])
    return KERNELS.load(call.name)(**call.arguments)


def model(sections: dict[str, Any]) -> nn.Module:
    """The network around them."""
    call = Call.of(sections["model"])
    called, transform = MODELS.load(call.name), kernel_transform(sections)
    slots: dict[str, Any] = {"norm": normaliser(sections), "classes": outline(sections).classes}
    if transform is not None:
        if "kernel" not in inspect.signature(called).parameters:
            message = f"model {call.name} has no slot for a kernel transform; use null"
            raise SectionError("kernel", None, message)
        slots["kernel"] = transform
    return called(**slots, **call.arguments)


def optimizer(sections: dict[str, Any]) -> optax.GradientTransformation:
    """The optimiser, with its schedule, the weight decay and what the recipe adds."""
    call = Call.of(sections["optimizer"])
    function = OPTIMIZERS.load(call.name)
    accepted = inspect.signature(function).parameters
    arguments = dict(call.arguments)
    decay = sections["decay"]
    roles = tuple(decay["roles"])
    arguments |= {mask: RoleMask(roles) for mask in MASKS if mask in accepted}
    rate = arguments.pop("learning_rate", None)
    if sections["schedule"] is not None:
        rate = schedule(sections)
    make = partial(function, **arguments)
    built = make() if rate is None else rated(make, rate, total_steps(sections))
    return as_told(decayed(built, decay["rate"], roles), recipe(sections))


def schedule(sections: dict[str, Any]) -> optax.Schedule:
    """The learning rate by step."""
    call = Call.of(sections["schedule"])
    return SCHEDULES.load(call.name)(**call.arguments)


def recipe(sections: dict[str, Any]) -> Recipe:
    """The settings of the training loop."""
    return Recipe(**{key: as_argument(value) for key, value in sections["train"].items()})


def program(sections: dict[str, Any]) -> Program:
    """Everything that is compiled, for any seed."""
    calls = [Call.of(call) for call in sections["data"]["augment"]]
    augmentations = tuple(AUGMENTATIONS.load(call.name)(**call.arguments) for call in calls)
    return Program(model(sections), optimizer(sections), recipe(sections), augmentations)


def probes(sections: dict[str, Any]) -> dict[str, Probe]:
    """What looks inside the network, each by the name that its rows have."""
    calls = [Call.of(call) for call in sections["probes"]["measure"]]
    return {probe_name(call.name): PROBES.load(call.name)(**call.arguments) for call in calls}


def probe_name(name: str) -> str:
    """What rows call a probe: its class in snake case, as `my_probe` of `my_file:MyProbe`."""
    return snake_case(name.partition(":")[2] or name)


def needs_learning_rate(name: str) -> bool:
    """Whether an optimiser has no learning rate of its own."""
    parameter = inspect.signature(OPTIMIZERS.load(name)).parameters["learning_rate"]
    return parameter.default is inspect.Parameter.empty


def total_steps(sections: dict[str, Any]) -> int:
    """How many optimiser steps a run takes."""
    settings = recipe(sections)
    return settings.epochs * settings.steps_per_epoch(outline(sections).train_examples)


def parameter_shapes(sections: dict[str, Any]) -> Any:
    """The tree of the model's parameters, as shapes: nothing is computed."""
    return _variable_shapes(model(sections), sections)["params"]


def mismatches(sections: dict[str, Any]) -> tuple[SectionError, ...]:
    """Why sections that are right by themselves cannot work together.

    One training step is traced as shapes; nothing is computed.

    Args:
        sections: resolved. Without an optimizer the others are judged without it.
    """
    # Seeds make no difference, and a sweep has many.
    blotted = {**sections, "train": {**sections["train"], "seed": 0}}
    return _mismatches(Keyed(repr(blotted), blotted))


@dataclass(frozen=True)
class Keyed:
    """Sections as a key of a cache."""

    key: str
    sections: dict[str, Any] = field(compare=False)


@lru_cache(maxsize=256)
def _mismatches(keyed: Keyed) -> tuple[SectionError, ...]:
    found = []
    for check in (_check_accumulation, _check_length, _check_shapes, _check_optimizer):
        if check is _check_optimizer and found:
            continue  # it needs what the others could not make
        if any(error.section == "data" for error in found):
            break  # nothing is known of the images then
        try:
            check(keyed.sections)
        except SectionError as error:
            found.append(error.with_traceback(None))
        except Exception as error:
            section = _section_outside(keyed.sections, error)
            if section is None:
                raise
            name = keyed.sections[section]["name"]
            found.append(SectionError(section, "name", failure_outside(name, error)))
    return tuple(found)


def _check_accumulation(sections: dict[str, Any]) -> None:
    settings, norm = recipe(sections), normaliser(sections)
    uses_batch, ghosts = norm.facts.uses_batch, getattr(norm, "norm_batch", 0)
    if settings.accumulate > 1 and uses_batch and ghosts is None:
        part = settings.batch_size // settings.accumulate
        raise SectionError(
            "norm",
            None,
            f"with train.accumulate={settings.accumulate} each microbatch of {part} examples is "
            f"normalised by itself; say so with norm_batch: {part} (or a divisor of it)",
        )


def _check_length(sections: dict[str, Any]) -> None:
    try:
        steps = total_steps(sections)
    except FieldError as error:
        raise SectionError("data", error.field, str(error)) from None
    except UserError as error:
        raise SectionError("train", "batch_size", str(error)) from None
    if steps > MOST_STEPS:
        message = f"{steps} steps are more than the {MOST_STEPS} that can be counted"
        raise SectionError("train", "epochs", message)


def _check_shapes(sections: dict[str, Any]) -> None:
    """Trace one training batch through the model."""
    settings, network = recipe(sections), model(sections)
    slots = {"norm": normaliser(sections), "kernel": kernel_transform(sections)}
    images = _images(sections, settings.batch_size // settings.accumulate)
    try:
        trained = partial(network.apply, train=True, mutable=[NORM_STATE])
        jax.eval_shape(trained, _variable_shapes(network, sections), images, rngs=jax.random.key(0))
    except FieldError as error:
        section = next((name for name in slots if hasattr(slots[name], error.field)), "model")
        raise SectionError(section, error.field, str(error)) from None
    except KernelError as error:
        raise SectionError("kernel", None, str(error)) from None
    except UserError as error:
        raise SectionError("norm", None, str(error)) from None


def _check_optimizer(sections: dict[str, Any]) -> None:
    """Trace one update; optax checks few of its arguments before that."""
    if sections["optimizer"] is None:
        return
    try:
        if sections["schedule"] is not None:
            jax.eval_shape(schedule(sections), jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        raise SectionError("schedule", None, f"optax cannot use it: {_short(error)}") from None
    params = parameter_shapes(sections)
    try:
        transformation = optimizer(sections)
        state = jax.eval_shape(transformation.init, params)
        jax.eval_shape(transformation.update, params, state, params)
    except Exception as error:
        raise SectionError("optimizer", None, f"optax cannot use it: {_short(error)}") from None


def failure_outside(name: str, error: BaseException) -> str:
    """What to say when `package.module:Class` itself fails: no traceback, but its last line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == _file_of(name)]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{name} fails: {_short(error)}{place}"


def _section_outside(sections: dict[str, Any], error: Exception) -> str | None:
    """The section with an entry outside normlab that an error comes from, if there is any."""
    parts = [part for part in ("norm", "kernel", "model", "data") if sections.get(part)]
    outside = [part for part in parts if ":" in sections[part]["name"]]
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    guilty = [part for part in outside if _file_of(sections[part]["name"]) in files]
    return next(iter([*guilty, *outside]), None)


def _file_of(name: str) -> str | None:
    return getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _images(sections: dict[str, Any], count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *outline(sections).image_shape), jnp.float32)


def _variable_shapes(network: nn.Module, sections: dict[str, Any]) -> Any:
    start = partial(network.init, train=False)
    return jax.eval_shape(start, jax.random.key(0), _images(sections, 1))
