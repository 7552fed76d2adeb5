"""Reads the section `evaluate`, and finds out what the evaluations of a run will record.

    evaluate: tent                                       # one policy, on shuffled batches of 200
    evaluate: {policy: [stored, tent], stream: sorted, batch_size: 64}
    evaluate:
      policy: {slow: {name: tent, learning_rate: 1e-4}, fast: tent}    # labels, which claims use
      stream: [iid, sorted]
      batch_size: [1, 64]

The evaluations take place after the last step and change nothing that is trained. Every policy,
stream and batch size of the section is judged on one trained network. As an axis of the sweep, such
as `evaluate.stream`, they make runs of their own instead, which train alike.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from normlab.catalogue import POLICIES
from normlab.configs import build
from normlab.configs.document import Node, Path, Problem, named, show
from normlab.configs.own_code import failure_outside
from normlab.configs.sections import Section
from normlab.configs.signatures import Checked, check_arguments, check_call, check_list
from normlab.data.corruptions import corruption
from normlab.errors import UserError
from normlab.measures.evaluated import Judged
from normlab.policies.contract import Source
from normlab.policies.evaluating import CLEAN, Setting, parts_of

SEVERAL = ("stream", "batch_size", "corruptions")
"""The settings of which one value stands for a list of one."""


def check_evaluate(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check the settings of the evaluations, and the policies, which get labels."""
    if not isinstance(given.content, dict) or "name" in given.content:
        given = Node({"policy": given}, given.mark, given.own_key_mark)
    for key in SEVERAL:
        one = given.get(key)
        if one is not None and one.content is not None and not isinstance(one.content, list):
            given = given.put((key,), Node([one], one.mark, one.own_key_mark))
    assert section.settings is not None
    policies, found = _check_policies(given)
    settings, problems = check_arguments(section.settings, name, given.without("policy"), name)
    problems += found
    if settings is None or problems:
        return None, problems
    return {**settings, "policy": policies}, []


def _check_policies(given: Node) -> Checked[dict[str, Any]]:
    """Return the policies' calls by their labels."""
    policy = given.get("policy")
    if policy is None or not policy.value:
        message = f"evaluate needs the key 'policy': one of {', '.join(POLICIES.entries())}"
        return {}, [Problem(given.mark_at(("policy",)), message)]
    labelled = isinstance(policy.content, dict) and "name" not in policy.content
    if labelled:
        calls, problems = {}, []
        for label, node in policy.content.items():
            if not isinstance(label, str) or not label.isidentifier():
                message = f"the label of a policy is a word, found {show(label)}"
                problems.append(Problem(node.key_mark, message))
            call = named(node)
            if not isinstance(call.content, dict):
                message = f"a policy is a name or a mapping with a name, found {show(call.value)}"
                problems.append(Problem(node.mark, message))
                continue
            checked, found = check_call(call, POLICIES, "policy")
            problems += found
            calls[label] = checked
        return calls, problems
    listed = policy if isinstance(policy.content, list) else Node([policy], policy.mark)
    found, problems = check_list(listed, "policy", POLICIES, "policy")
    if problems:
        return {}, problems
    labels = [build.probe_name(call["name"]) for call in found]
    for index, label in enumerate(labels):
        if label in labels[:index]:
            message = f"the policy '{label}' is given twice; give both labels: {{first: ..., ...}}"
            problems.append(Problem(listed.mark_at((index,)), message))
    return dict(zip(labels, found, strict=True)), problems


def settings_of(sections: dict[str, Any]) -> list[Setting]:
    """Return the evaluations of a run: every policy on every stream with every batch size."""
    given = sections.get("evaluate")
    if given is None:
        return []
    return [
        Setting(label, policy, stream, size)
        for label, policy in build.policies(sections).items()
        for stream in given["stream"]
        for size in given["batch_size"]
    ]


def short_labels(settings: list[Setting]) -> list[str]:
    """Return a word for each evaluation: the policy, with what sets it apart from the others.

    >>> from normlab.policies import Stored
    >>> short_labels([Setting("stored", Stored(), "iid", size) for size in (1, 64)])
    ['stored_1', 'stored_64']
    """
    kept = [n for n in (1, 2) if len({one.words[n] for one in settings}) > 1]
    return ["_".join([one.name, *(one.words[n] for n in kept)]) for one in settings]


@dataclass(frozen=True)
class Planned:
    """The evaluations that a run will have, and the policies that cannot be, with reasons."""

    judged: tuple[Judged, ...]
    problems: tuple[tuple[Path, str], ...]


def look_ahead(sections: dict[str, Any]) -> Planned:
    """Trace a resolved run's evaluations as shapes, and return what they will record."""
    if sections.get("evaluate") is None:
        return Planned((), ())
    return _look_ahead(build.Keyed.by_program(sections))


@lru_cache(maxsize=256)
def _look_ahead(keyed: build.Keyed) -> Planned:
    sections, problems = keyed.sections, []
    given, outline = sections["evaluate"], build.outline(sections)
    network = build.program(sections).network
    params, state = build.variable_shapes(build.by_network(sections), build.microbatch(sections))
    size = min(sections["train"]["batch_size"], outline.train_examples)
    images: Any = jax.ShapeDtypeStruct((1, size, *outline.image_shape), jnp.float32)
    labels: Any = jax.ShapeDtypeStruct((1, size), jnp.int32)
    source = Source(images, labels, jax.eval_shape(lambda: jax.random.key(0)))
    for label, policy in build.policies(sections).items():
        try:
            adapted = jax.eval_shape(partial(policy.begin, network), params, state, source)
            images = build.image_shapes(sections, min(*given["batch_size"], outline.test_examples))
            jax.eval_shape(partial(policy.answer, network), adapted, images)
        except UserError as error:
            problems.append((("policy",), f"{label} cannot evaluate this network: {error}"))
        except Exception as error:
            called = given["policy"][label]["name"]
            if ":" not in called:
                raise
            problems.append((("policy",), failure_outside(called, error)))
    parts = {stream: parts_of(stream, given["corruptions"]) for stream in given["stream"]}
    picture: Any = jax.ShapeDtypeStruct((1, *outline.image_shape), jnp.float32)
    for part in dict.fromkeys(one for own in parts.values() for one in own if one != CLEAN):
        try:
            kind = corruption(part, given["severity"])
            jax.eval_shape(kind, jax.eval_shape(lambda: jax.random.key(0)), picture)
        except UserError as error:
            problems.append((("corruptions",), str(error).removeprefix("corruptions: ")))
    judged = tuple(Judged(one.words, parts[one.stream]) for one in settings_of(sections))
    return Planned(judged, tuple(problems))


def check_together(config: Node, sections: dict[str, Any]) -> list[Problem]:
    """Return the mistakes in `evaluate` that only show beside the rest of the config."""
    return [
        Problem(config.mark_at(("evaluate", *path)), f"evaluate: {message}")
        for path, message in look_ahead(sections).problems
    ]
