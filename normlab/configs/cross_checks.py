"""Checks that valid sections work together, by tracing shapes without computing anything."""

import re
import traceback
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from normlab.adapters.classifier import Classifier
from normlab.adapters.freezing import freeze
from normlab.configs.build import (
    Keyed,
    by_network,
    kernel_transform,
    mesh,
    microbatch,
    network,
    normaliser,
    optimizer,
    outline,
    parameter_shapes,
    recipe,
    schedule,
    total_steps,
    variable_shapes,
)
from normlab.configs.calls import SectionError
from normlab.configs.dealing import sharding
from normlab.configs.own_code import failure_outside, file_of
from normlab.configs.placing import placement
from normlab.errors import FieldError, KernelError, UserError, in_one_line
from normlab.models.slots import is_ours
from normlab.training.federated import require_rounds
from normlab.training.privacy import require_private, serves
from normlab.training.projection import SPHERE, require_sphere
from normlab.training.recipe import Recipe

MOST_STEPS = 2**31 - 1
"""The greatest number that the step counter, an int32, can hold."""


def mismatches(sections: dict[str, Any]) -> tuple[SectionError, ...]:
    """Return the reasons why valid sections cannot work together.

    One training step is traced as shapes; nothing is computed.

    Args:
        sections: resolved ones. If the optimizer is None, it is not checked.
    """
    # The seed is the same in every key, because it makes no difference and a sweep has many.
    blotted = {**sections, "train": {**sections["train"], "seed": 0}}
    return _mismatches(Keyed(repr(blotted), blotted))


@lru_cache(maxsize=256)
def _mismatches(keyed: Keyed) -> tuple[SectionError, ...]:
    found = []
    for check in CHECKS:
        if check is OF_NETWORKS[0] and found:
            break  # they need the network, which the others could not make
        if any(error.section in ("data", "mesh") for error in found):
            break  # nothing is known of the images then, or of how many there are at once
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
    uses_batch = norm is not None and norm.facts.uses_batch
    ghosts = getattr(norm, "norm_batch", 0)
    told = settings.statistics is not None
    if settings.accumulate > 1 and uses_batch and ghosts is None and not told:
        part = settings.batch_size // settings.accumulate
        raise SectionError(
            "norm",
            None,
            f"with train.accumulate={settings.accumulate} each microbatch of {part} examples is "
            f"normalised by itself; say so with norm_batch: {part} (or a divisor of it)",
        )


def _check_mesh(sections: dict[str, Any]) -> None:
    settings = recipe(sections)
    try:
        mesh(sections).check(settings.batch_size // settings.microbatches)
    except FieldError as error:
        raise SectionError("mesh", error.field, str(error)) from None


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
    keyed = by_network(sections)
    slots = {"norm": normaliser(sections), "kernel": kernel_transform(sections)}
    network(keyed)  # its errors name their section themselves
    slots["placement"] = placement(sections)
    try:
        variable_shapes(keyed, microbatch(sections))
    except FieldError as error:
        section = next((name for name in slots if hasattr(slots[name], error.field)), "model")
        raise SectionError(section, error.field, str(error)) from None
    except KernelError as error:
        raise SectionError("kernel", None, str(error)) from None
    except UserError as error:
        raise SectionError("norm", None, str(error)) from None


def _check_sphere(sections: dict[str, Any]) -> None:
    """Check that what is on a sphere is kept there, and that nothing pulls it away."""
    settings = recipe(sections)
    try:
        require_sphere(parameter_shapes(sections), settings.project)
    except UserError as error:
        raise SectionError("train", "project", str(error)) from None
    if settings.project != SPHERE:
        return
    why = "shortens unit vectors, which train.project brings back"
    if sections["decay"]["rate"] > 0:
        raise SectionError("decay", "rate", f"weight decay {why}: leave it out")
    given = sections["optimizer"]
    if given is not None and given.get("weight_decay"):
        message = f"the weight decay of {given['name']} {why}: write weight_decay: 0"
        raise SectionError("optimizer", "weight_decay", message)


def _check_privacy(sections: dict[str, Any]) -> None:
    """Check that nothing but the noisy sum of gradients joins the examples, and delta."""
    settings, keyed = recipe(sections).private, by_network(sections)
    if settings is None:
        return
    norm, devices = normaliser(sections), mesh(sections).data
    section = "norm" if norm is not None and not serves(norm) else "model"
    section = "mesh" if devices > 1 else section
    try:
        _, state = variable_shapes(keyed, microbatch(sections))
        require_private(Classifier(network(keyed)), state, devices)
    except UserError as error:
        raise SectionError(section, None, str(error)) from None
    examples = outline(sections).train_examples
    if settings.delta >= 1 / examples:
        message = (
            f"private.delta must be below 1 / {examples}, one over the number of training "
            f"examples, got {settings.delta}: a larger one allows to publish some of them"
        )
        raise SectionError("train", "private", message)


def _check_optimizer(sections: dict[str, Any]) -> None:
    """Trace one update, because optax checks few of its arguments before that."""
    if sections["optimizer"] is None:
        return
    try:
        if sections["schedule"] is not None:
            jax.eval_shape(schedule(sections), jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        raise SectionError("schedule", None, f"optax cannot use it: {in_one_line(error)}") from None
    try:
        _trace_update(Keyed.by_program(sections))
    except UserError as error:
        raise SectionError("train", None, str(error)) from None
    except Exception as error:
        raise SectionError(
            "optimizer", None, f"optax cannot use it: {in_one_line(error)}"
        ) from None


def _check_rounds(sections: dict[str, Any]) -> None:
    """Check the settings of clients, and that the rounds suit them."""
    settings, shards = recipe(sections), sharding(sections)
    if shards is None:
        for field in ("local_steps", "local_normalisers", "fixed_statistics_after"):
            if getattr(settings, field) != getattr(Recipe(), field):
                message = f"'{field}' is of clients, and there are none: give data.shards"
                raise SectionError("train", field, message)
        return
    found = network(by_network(sections))
    try:
        require_rounds(settings, shards.clients, is_ours(found))
    except FieldError as error:
        raise SectionError("train", error.field, str(error)) from None
    if settings.fixed_statistics_after is not None:
        try:
            freeze(found)
        except UserError as error:
            raise SectionError("train", "fixed_statistics_after", str(error)) from None


OF_NETWORKS = (_check_sphere, _check_privacy, _check_optimizer)
"""The checks that are made if the others find nothing."""

CHECKS = (
    _check_accumulation,
    _check_mesh,
    _check_length,
    _check_rounds,
    _check_shapes,
    *OF_NETWORKS,
)
"""All checks, in the order in which they are made."""


@lru_cache(maxsize=256)
def _trace_update(keyed: Keyed) -> None:
    params, transformation = (
        one_of_each(parameter_shapes(keyed.sections)),
        optimizer(keyed.sections),
    )
    state = jax.eval_shape(transformation.init, params)
    jax.eval_shape(transformation.update, params, state, params)


def one_of_each(params: Any) -> Any:
    """Keep one of the parameters whose paths differ in numbers alone and whose shapes are equal.

    Optimisers treat them alike, and a network of many blocks has many.

    >>> shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    >>> list(one_of_each({"Dense_0": {"bias": shape}, "Dense_1": {"bias": shape}}))
    ['Dense_0']
    """
    seen: set[Any] = set()

    def kept(tree: Any, path: str) -> Any:
        if isinstance(tree, dict):
            below = {key: kept(value, f"{path}/{key}") for key, value in tree.items()}
            return {key: value for key, value in below.items() if value is not None} or None
        leaves = jax.tree.leaves(tree)
        kind = re.sub(r"\d+", "", path), tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if kind in seen:
            return None
        seen.add(kind)
        return tree

    return kept(params, "") or params


def _section_outside(sections: dict[str, Any], error: Exception) -> str | None:
    """Return the section whose entry outside normlab raised an error, or None."""
    ours = ("norm", "kernel", "placement", "model", "data")
    parts = [part for part in ours if sections.get(part)]
    outside = [part for part in parts if ":" in sections[part]["name"]]
    files = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    guilty = [part for part in outside if file_of(sections[part]["name"]) in files]
    return next(iter([*guilty, *outside]), None)
