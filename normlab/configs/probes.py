"""Reads the section `probes`, and finds out what the probes of a run will record.

    probes:
      at: [0, 10, end]         # the steps before which the probes look; "end" is after the last one
      every: 100               # they look before every 100th step too, from 0 on
      examples: 256            # the first training images, standardised and without augmentation
      measure: [activations, {name: hessian, count: 3}]

A probe changes nothing: the same config without the section trains to bitwise the same parameters.
It is nevertheless a part of a run's hash, because a run that was made without it has no records and
its states are gone. Adding `probes` to a config therefore makes new runs beside the earlier ones.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from normlab.configs import build
from normlab.configs.document import Node, Path, Problem
from normlab.configs.evaluations import settings_of, short_labels
from normlab.configs.own_code import failure_outside
from normlab.data.dataset import Outline
from normlab.errors import UserError
from normlab.measures.evaluated import AFTER
from normlab.measures.probe_values import END
from normlab.probes.contract import HeldOut, Moment, PerLayer, Subject
from normlab.probes.layers import shapes_alone


def in_order(at: tuple[int | str, ...]) -> list[int | str]:
    """Return the steps of `at` in the order of a resolved config, so that the hash ignores order.

    >>> in_order((10, "end", 0, 10))
    [0, 10, 'end']
    """
    numbers = sorted({step for step in at if isinstance(step, int)})
    return [*numbers, *([END] if END in at else [])]


def look_at(sections: dict[str, Any]) -> frozenset[int]:
    """Return the steps before which the probes look; the total number of steps means the end."""
    probing = sections.get("probes")
    if probing is None:
        return frozenset()
    total = build.total_steps(sections)
    given = {total if step == END else step for step in probing["at"]}
    every = probing["every"]
    return frozenset(given | set(range(0, total, every) if every else ()))


class Quantity(NamedTuple):
    """A quantity that a run will record, with the name of its probe, its layers and its shape."""

    probe: str
    name: str
    layers: tuple[str, ...] | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inside:
    """The records that the probes of a run will make.

    Attributes:
        steps: the steps before which the probes look.
        total: the number of steps of the run.
        quantities: the quantities that are recorded at each of these steps.
        problems: the probes that cannot look into the network, by place in the list, with reasons.
    """

    steps: frozenset[int]
    total: int
    quantities: tuple[Quantity, ...]
    problems: tuple[tuple[int, str], ...]


def look_inside(sections: dict[str, Any]) -> Inside | None:
    """Trace a resolved run's probes as shapes, and return the records that they will make."""
    if sections.get("probes") is None:
        return None
    return _look_inside(build.Keyed.by_program(sections))


@lru_cache(maxsize=256)
def _look_inside(keyed: build.Keyed) -> Inside:
    sections = keyed.sections
    program, outline = build.program(sections), build.outline(sections)
    count = sections["probes"]["examples"]
    images: Any = jax.ShapeDtypeStruct((count, *outline.image_shape), jnp.float32)
    labels: Any = jax.ShapeDtypeStruct((count,), jnp.int32)
    shapes = build.variable_shapes(build.by_network(sections), build.microbatch(sections))
    state = jax.eval_shape(program.begin, *shapes)
    parts = (state.params, state.norm_state, program.optimizer_state(state))
    moment = Moment(*parts, images, labels, _held_out(outline))
    subject = Subject(program.model, program.loss, program.optimizer)
    quantities, problems = [], []
    for index, (name, probe) in enumerate(build.probes(sections).items()):
        try:
            with shapes_alone():
                found = jax.eval_shape(partial(probe.measure, subject), moment)
        except UserError as error:
            problems.append((index, f"{name} cannot look into this network: {error}"))
        except Exception as error:  # the probe does not suit the network
            call = sections["probes"]["measure"][index]["name"]
            problems.append((index, failure_outside(call, error)))
        else:
            for quantity, value in found.items():
                layers = value.layers if isinstance(value, PerLayer) else None
                shape = value.values.shape if isinstance(value, PerLayer) else value.shape
                quantities.append(Quantity(name, quantity, layers, shape))
    if (sections.get("evaluate") or {}).get("look"):
        labels = short_labels(settings_of(sections))
        quantities += [
            one._replace(probe=f"{one.probe}{AFTER}{label}")
            for label in labels
            for one in tuple(quantities)
        ]
    total = build.total_steps(sections)
    return Inside(look_at(sections), total, tuple(quantities), tuple(problems))


def _held_out(outline: Outline) -> HeldOut:
    images: Any = jax.ShapeDtypeStruct((outline.test_examples, *outline.image_shape), jnp.uint8)
    labels: Any = jax.ShapeDtypeStruct((outline.test_examples,), jnp.int32)
    channels: Any = jax.ShapeDtypeStruct(outline.image_shape[-1:], jnp.float32)
    return HeldOut(images, labels, channels, channels)


def check_together(config: Node, sections: dict[str, Any]) -> list[Problem]:
    """Return the mistakes in `probes` that only show beside the rest of the config."""
    probing = sections.get("probes")
    if probing is None:
        return []
    problems = []

    def complain(path: Path, message: str) -> None:
        problems.append(Problem(config.mark_at(("probes", *path)), f"probes: {message}"))

    total, given = build.total_steps(sections), config.at(("probes",)).value
    for index, step in enumerate(given.get("at", ())):
        if step != END and step > total:
            complain(("at", index), f"the run has {total} steps, found {step}; 'end' is the last")
    examples = build.outline(sections).train_examples
    if probing["examples"] > examples:
        message = f"'examples' must be at most {examples}, the training examples that there are"
        complain(("examples",), f"{message}, found {probing['examples']}")
        return problems
    found = look_inside(sections)
    for index, message in found.problems if found else ():
        complain(("measure", index), f"{message}; mend it or take it out of 'measure'")
    return problems
