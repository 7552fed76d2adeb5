"""Describes one entry of the catalogue, for `normlab describe`."""

import dataclasses
import inspect
from html import escape
from typing import Any

from normlab.catalogue import NORMS, PROBES, snake_case
from normlab.configs.document import flow
from normlab.configs.sections import SETTINGS, Target
from normlab.configs.signatures import describe_type, fields_model
from normlab.errors import UserError, did_you_mean
from normlab.interface.costs import cost_of
from normlab.interface.shelves import SHELVES

SECTIONS = {**SETTINGS, "target": Target}
"""What is told of whole."""


class Description(str):
    """A text that a notebook and a prompt show as it is."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre style='white-space: pre-wrap'>{escape(self)}</pre>"


def describe(what: Any) -> Description:
    """Describe an entry of the catalogue: what it does, its fields, its facts and its cost.

    Args:
        what: a name, such as "group_norm", or a section of a config, such as "train"; or an
            entry's class, or an object of it.

    Raises:
        UserError: nothing has that name; the message has the nearest.

    >>> print(describe("group_norm").splitlines()[0])
    group_norm (normaliser)
    """
    if not isinstance(what, str):
        what = snake_case((what if isinstance(what, type) else type(what)).__name__)
    return Description(describe_entry(what))


def describe_entry(name: str) -> str:
    """Give kind, docstring, fields with defaults, facts, and an example in YAML.

    Args:
        name: of an entry of the catalogue, or of a section of settings such as `train`.

    Raises:
        UserError: nothing has that name; the message has the nearest.
    """
    if name in SECTIONS:
        called, lines = SECTIONS[name], _arguments(name, SECTIONS[name])
        if name == "probes":
            lines.append(f"measure: ...  # a list of {', '.join(PROBES.entries())}")
        example = "\n".join(lines)
        yaml_text = f"In YAML, with every default:\n  {name}:\n{_indent(_indent(example))}"
        return "\n\n".join([f"{name} (section)", inspect.getdoc(called) or "", yaml_text])
    section, shelf = _find(name)
    called = shelf.load(name)
    parts = [f"{name} ({shelf.kind})", inspect.getdoc(called) or ""]
    function = _function_of(name, called)
    if function is not None:
        parts.append(f"In Python:\n{_indent(_signature(function))}")
    parts.append(f"In YAML, with every default:\n{_indent(_example(section, name, called))}")
    facts = getattr(called, "facts", None)
    if facts is not None:
        parts.append("Facts:\n" + _indent("\n".join(_facts(facts))))
    cost = cost_of(name) if section == "norm" else None
    if cost is not None:
        parts.append(f"Cost: {cost}")
    return "\n\n".join(parts)


def _find(name: str) -> tuple[str, Any]:
    if ":" in name:
        section = _section_of(name)
        return section, SHELVES[section]
    for section, shelf in SHELVES.items():
        if name in shelf.entries():
            return section, shelf
    everything = [*SECTIONS, *(name for shelf in SHELVES.values() for name in shelf.entries())]
    close = did_you_mean(name, everything)
    hint = close if close.startswith("did") else "see `normlab list norms`, `models`, `data`, ..."
    raise UserError(f"nothing is called '{name}'; {hint}")


def _section_of(name: str) -> str:
    """Find where a config names `package.module:Class`: as a normaliser, if it does not say."""
    try:
        kind = getattr(NORMS.find(name).load(), "catalogue_kind", None)
    except ImportError:
        kind = None  # which is told by whoever loads it
    own = [section for section, shelf in SHELVES.items() if getattr(shelf, "decorator", "") == kind]
    return next(iter(own), "norm")


def _function_of(name: str, called: Any) -> Any:
    """Find the pure function beside a description: `group_norm` beside `GroupNorm`."""
    if not isinstance(called, type):
        return None
    module = inspect.getmodule(called)
    function = getattr(module, snake_case(called.__name__), None)
    return function if inspect.isfunction(function) else None


def _signature(function: Any) -> str:
    home = f"from {function.__module__} import {function.__name__}"
    signature = str(inspect.signature(function)).replace("jax.jaxlib._jax.Array", "Array")
    return f"{home}\n{function.__name__}{signature}"


def _example(section: str, name: str, called: Any) -> str:
    lines = [f"name: {name}", *_arguments(section, called)]
    if section == "augmentation":
        return "data:\n  augment:\n    - " + "\n      ".join(lines)
    if section == "probe":
        return "probes:\n  measure:\n    - " + "\n      ".join(lines)
    return f"{section}:\n" + _indent("\n".join(lines))


def _arguments(section: str, called: Any) -> list[str]:
    lines = []
    for field, about in fields_model(called, section).model_fields.items():
        value = "..." if about.is_required() else flow(about.get_default())
        lines.append(f"{field}: {value}  # {describe_type(about.annotation)}")
    return lines


def _facts(facts: Any) -> list[str]:
    lines = []
    for field in dataclasses.fields(facts):
        value = getattr(facts, field.name)
        if isinstance(value, frozenset | tuple):
            value = ", ".join(sorted(value) if isinstance(value, frozenset) else value) or "nothing"
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        lines.append(f"{field.name.replace('_', ' ')}: {value}")
    return lines


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
