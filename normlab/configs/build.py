"""Turns a resolved config into objects; no other file calls what a config names."""

import inspect
import json
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from normlab.adapters.classifier import Classifier
from normlab.adapters.own_model import make_classifier, with_normaliser
from normlab.catalogue import (
    AUGMENTATIONS,
    KERNELS,
    MODELS,
    NORMS,
    POLICIES,
    PROBES,
    snake_case,
)
from normlab.configs.calls import Call, SectionError
from normlab.configs.dealing import sharding, sizes_with_clients, with_clients
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES, UNSTORABLE
from normlab.configs.own_code import loaded_code
from normlab.configs.placing import placement
from normlab.configs.sections import COMMON, OWN, without_earlier
from normlab.core import KernelTransform, Normaliser
from normlab.data.dataset import Dataset, Outline
from normlab.data.described import dataset_of, hashable
from normlab.errors import FieldError, UserError
from normlab.models.slots import is_ours
from normlab.policies.contract import Policy
from normlab.probes.contract import Probe
from normlab.store.seeds import seed_of
from normlab.training.federated import Federated
from normlab.training.mesh import Mesh
from normlab.training.optimizer import RoleMask, decayed, with_recipe
from normlab.training.program import Program
from normlab.training.rates import rated
from normlab.training.recipe import Recipe
from normlab.training.storable import storable

MASKS = ("mask", "weight_decay_mask")
"""The arguments by which optax's optimisers choose the parameters that decay."""


def outline(sections: dict[str, Any]) -> Outline:
    """Return the sizes of the data without loading them; validation is taken off training."""
    found: Outline = described(sections).outline()
    return sizes_with_clients(sections, found.validated(sections["data"]["validation"]))


def dataset(sections: dict[str, Any]) -> Dataset:
    """Load the data."""
    found: Dataset = described(sections).load()
    return with_clients(sections, found.validated(sections["data"]["validation"]))


def described(sections: dict[str, Any]) -> Any:
    """Make the description of the data, which loads nothing."""
    return dataset_of(sections["data"])


def normaliser(sections: dict[str, Any]) -> Normaliser | None:
    """Make the normaliser, or return None where a person's own model keeps its own layers."""
    call = Call.of(sections["norm"], *COMMON["norm"])
    return None if call.name == OWN else NORMS.load(call.name)(**call.arguments)


def kernel_transform(sections: dict[str, Any]) -> KernelTransform | None:
    """Make the kernel transform, if there is one."""
    if sections.get("kernel") is None:
        return None
    call = Call.of(sections["kernel"])
    return KERNELS.load(call.name)(**call.arguments)


def model(sections: dict[str, Any]) -> nn.Module:
    """Make the network around the normaliser, the kernel transform and the placement."""
    call = Call.of(sections["model"])
    called, transform = MODELS.load(call.name), kernel_transform(sections)
    if not is_ours(called):
        return _own_model(sections, called, call)
    if sections["norm"]["name"] == OWN:
        message = f"norm '{OWN}' is the layers of a model of your own; {call.name} has none"
        raise SectionError("norm", "name", message)
    if sections["norm"].get("where") is not None:
        message = f"model {call.name} has slots, which all hold one normaliser; leave out where"
        raise SectionError("norm", "where", message)
    slots: dict[str, Any] = {"norm": normaliser(sections), "classes": outline(sections).classes}
    if transform is not None:
        if "kernel" not in inspect.signature(called).parameters:
            message = f"model {call.name} has no slot for a kernel transform; use null"
            raise SectionError("kernel", None, message)
        slots["kernel"] = transform
    placed = placement(sections)
    if placed is not None:
        slots["placement"] = placed
    return called(**slots, **call.arguments)


def _own_model(sections: dict[str, Any], called: Any, call: Call) -> nn.Module:
    """Make a person's own network, with the normaliser in the place of its own layers."""
    if kernel_transform(sections) is not None:
        message = f"model {call.name} has no slot for a kernel transform; use null"
        raise SectionError("kernel", None, message)
    placement(sections)  # raises, as there is no slot
    data, norm = outline(sections), normaliser(sections)
    try:
        made = make_classifier(called, call.arguments, data.classes, data.image_shape)
    except UserError as error:
        field = error.field if isinstance(error, FieldError) else None
        raise SectionError("model", field, f"{call.name}: {error}") from error
    if norm is None:
        return made
    where = hashable(sections["norm"].get("where"))
    try:
        return with_normaliser(made, norm, data.image_shape, where)
    except FieldError as error:
        raise SectionError("norm", error.field, str(error)) from error
    except UserError as error:
        raise SectionError("norm", None if where is None else "where", str(error)) from error


def optimizer(sections: dict[str, Any]) -> optax.GradientTransformation:
    """Make the optimiser, with its schedule, the weight decay and the recipe's additions."""
    call = Call.of(sections["optimizer"])
    function = OPTIMIZERS.load(call.name)
    accepted = inspect.signature(function).parameters
    arguments = dict(call.arguments)
    decay, roles = sections["decay"], tuple(sections["decay"]["roles"])
    norm_paths = _norm_paths(by_network(sections))
    arguments |= {mask: RoleMask(roles, norm_paths) for mask in MASKS if mask in accepted}
    by_run = False
    if "key" in accepted:  # of noise; the program is one for all seeds, and its state has the key
        given = arguments.pop("seed", None)
        by_run, arguments["key"] = given is None, given or 0
    rate = arguments.pop("learning_rate", None)
    if sections["schedule"] is not None:
        rate = schedule(sections)
    make = partial(function, **arguments)
    built = make() if rate is None else rated(make, rate, total_steps(sections))
    if call.name in UNSTORABLE or "key" in accepted:
        built = storable(built, by_run)
    return with_recipe(decayed(built, decay["rate"], roles, norm_paths), recipe(sections))


def schedule(sections: dict[str, Any]) -> optax.Schedule:
    """Make the schedule, which gives the learning rate by step."""
    call = Call.of(sections["schedule"])
    return SCHEDULES.load(call.name)(**call.arguments)


def recipe(sections: dict[str, Any]) -> Recipe:
    """Make the settings of the training loop."""
    settings = {**sections["train"], "seed": seed_of(sections["train"]["seed"])}
    return Recipe(**{key: hashable(value) for key, value in settings.items()})


def mesh(sections: dict[str, Any]) -> Mesh:
    """Make the devices that each batch is spread over."""
    return Mesh(**sections.get("mesh") or {})


def program(sections: dict[str, Any]) -> Program:
    """Make the program that is compiled once for all seeds."""
    calls = [Call.of(call) for call in sections["data"]["augment"]]
    augmentations = tuple(AUGMENTATIONS.load(call.name)(**call.arguments) for call in calls)
    parts = network(by_network(sections)), optimizer(sections), recipe(sections), augmentations
    shards = sharding(sections)
    if shards is None:
        return Program(*parts, mesh(sections))
    return Federated(*parts, mesh(sections), clients=shards.clients)


def probes(sections: dict[str, Any]) -> dict[str, Probe]:
    """Make the probes, by the names that their rows have."""
    calls = [Call.of(call) for call in sections["probes"]["measure"]]
    return {probe_name(call.name): PROBES.load(call.name)(**call.arguments) for call in calls}


def policies(sections: dict[str, Any]) -> dict[str, Policy]:
    """Make the policies of evaluation, by their labels."""
    calls = {label: Call.of(call) for label, call in sections["evaluate"]["policy"].items()}
    return {label: POLICIES.load(call.name)(**call.arguments) for label, call in calls.items()}


def probe_name(name: str) -> str:
    """Return a probe's or a policy's name in rows: `my_probe` for `my_file:MyProbe`."""
    return snake_case(name.partition(":")[2] or name)


def needs_learning_rate(name: str) -> bool:
    """Return whether an optimiser has no learning rate of its own."""
    parameter = inspect.signature(OPTIMIZERS.load(name)).parameters.get("learning_rate")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def total_steps(sections: dict[str, Any]) -> int:
    """Return the number of optimiser steps of a run."""
    settings = recipe(sections)
    return settings.epochs * settings.steps_per_epoch(outline(sections).train_examples)


def parameter_shapes(sections: dict[str, Any]) -> Any:
    """Return the tree of the model's parameters as shapes; nothing is computed."""
    return variable_shapes(by_network(sections), microbatch(sections))[0]


def microbatch(sections: dict[str, Any]) -> int:
    """Return how many examples the network sees at once in training."""
    settings, shards = recipe(sections), sharding(sections)
    together = settings.batch_size // settings.microbatches
    if shards is not None:
        return max(together // shards.clients // settings.local_steps, 1)
    return together // mesh(sections).data if settings.statistics == "local" else together


def of_one_program(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the sections without seed and learning rate, in which runs of a program differ."""
    optimizer, seed = sections["optimizer"], sections["train"]["seed"]
    rated = optimizer and {
        **optimizer,
        "learning_rate": optimizer.get("learning_rate") is not None,
    }
    return {
        **sections,
        # A program takes a number for every seed, or one for each stream.
        "train": {**sections["train"], "seed": "split" if isinstance(seed, dict) else None},
        "optimizer": rated,
        "schedule": sections["schedule"] is not None,
    }


@dataclass(frozen=True)
class Keyed:
    """Sections as a key of a cache.

    Two are equal if their `key` is, so it holds everything that the cached value depends on. The
    hashes of a person's own code are added, because a notebook may load the code again.
    """

    key: str
    sections: dict[str, Any] = field(compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.key}{loaded_code(self.sections)}")

    @classmethod
    def by_program(cls, sections: dict[str, Any]) -> "Keyed":
        """Make the key of values that are the same for every seed and learning rate."""
        return cls(repr(of_one_program(sections)), sections)


def image_shapes(sections: dict[str, Any], count: int) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of `count` images as the network takes them."""
    return jax.ShapeDtypeStruct((count, *outline(sections).image_shape), jnp.float32)


def by_network(sections: dict[str, Any]) -> Keyed:
    """Make the key of values that depend on the network and the shape of its images alone."""
    parts = ("model", "norm", "kernel", "placement")
    given = without_earlier({part: sections.get(part) for part in parts}, shown=False)
    data = outline(sections)
    key = [*given.values(), data.image_shape, data.classes]
    return Keyed(json.dumps(key, default=repr), sections)  # which writes tuples as lists


@lru_cache(maxsize=256)
def variable_shapes(keyed: Keyed, examples: int) -> Any:
    """Trace a training batch through the network; return parameters and state as shapes.

    Args:
        keyed: made by `by_network`.
        examples: the number of images in the batch.

    Raises:
        UserError: the network, or something in it, cannot take such a batch.
    """
    classifier, images = Classifier(network(keyed)), image_shapes(keyed.sections, examples)
    if classifier.is_ours:
        try:
            return classifier.traced(images)
        except UserError:
            _first_shapes(keyed)  # raises what is wrong for one image already
            raise
    params, state = _first_shapes(keyed)
    step = partial(classifier.apply, train=True, key=jax.random.key(0))
    jax.eval_shape(step, params, state, images)
    return params, state


@lru_cache(maxsize=256)
def _first_shapes(keyed: Keyed) -> Any:
    """Trace the start of a network; return parameters and state as shapes."""
    start = partial(Classifier(network(keyed)).init, images=image_shapes(keyed.sections, 1))
    return jax.eval_shape(start, jax.random.key(0))


@lru_cache(maxsize=256)
def _norm_paths(keyed: Keyed) -> frozenset[tuple[str, ...]] | None:
    """Return the paths of the normalisation layers in a person's own network; else None."""
    found = network(keyed)
    if is_ours(found):
        return None
    params, state = _first_shapes(keyed)
    return Classifier(found).norm_paths(params, state, image_shapes(keyed.sections, 1))


@lru_cache(maxsize=256)
def network(keyed: Keyed) -> nn.Module:
    """Return the network, as one object for all runs that have it."""
    return model(keyed.sections)
