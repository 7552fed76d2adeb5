"""The JSON schema of a config, for editors that complete and check YAML as it is typed."""

from typing import Any

from normlab.catalogue import AUGMENTATIONS, PROBES
from normlab.configs import dialects
from normlab.configs.claims import KEYS
from normlab.configs.sections import COMMON_TO_DATA, OWN, RANGE, SECTIONS, TARGET, WORDS
from normlab.configs.signatures import fields_model
from normlab.configs.tune import DEFAULT_MEASURE
from normlab.dialects.library import Dialect, dialects_of
from normlab.measures.measures import MEASURES

ENTRY_BY_PATH = r"^[\w.]+:\w+$"


def json_schema() -> dict[str, Any]:
    """A JSON schema (2020-12) that accepts every config `normlab check` accepts, and few others."""
    properties: dict[str, Any] = {
        key: {"type": "string", "description": text} for key, text in WORDS.items()
    }
    for name, section in SECTIONS.items():
        if section.shelf is not None:
            # A config that extends another may leave the name to it.
            properties[name] = _call_of(section.shelf.entries(), name, {"required": []})
        if section.shelf is not None and not section.needed:
            properties[name]["anyOf"].append({"type": "null"})
        if section.settings is not None:
            properties[name] = _fields(section.settings, name)
    augment = {"type": "array", "items": _call_of(AUGMENTATIONS.entries(), "augmentation", {})}
    augment["description"] = COMMON_TO_DATA["augment"]
    kinds = [{"type": ["integer", "null"]}, {"const": OWN}]
    validation = {"anyOf": kinds, "description": COMMON_TO_DATA["validation"]}
    for variant in properties["data"]["anyOf"]:
        if "properties" in variant:
            variant["properties"] |= {"augment": augment, "validation": validation}
    measure = {"type": "array", "items": _call_of(PROBES.entries(), "probe", {}), "minItems": 1}
    measure["description"] = "the probes"
    probes = properties["probes"]
    probes |= {
        "type": ["object", "null"],
        "properties": {**probes["properties"], "measure": measure},
    }
    properties["target"] = _fields(TARGET.settings, "target")
    properties |= {"sweep": _sweep(), "tune": _tune(), "claims": _claims()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "normlab experiment",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _sweep() -> dict[str, Any]:
    values = {
        "description": "a list of values, a range as in 0..4, or a mapping of labels to values",
        "anyOf": [
            {"type": "array", "minItems": 1},
            {"type": "string", "pattern": f"^{RANGE.pattern}$"},
            {"type": "object", "minProperties": 1},
        ],
    }
    point = {"type": "object", "minProperties": 1}
    axes = {**point, "additionalProperties": values}
    forms = {
        "zip": {
            "description": "axes that go together value by value, or a list of such mappings",
            "anyOf": [axes, {"type": "array", "items": axes}, {"type": "null"}],
        },
        "list": {
            "description": "points, each a mapping of axes to values; or labels of points to them",
            "anyOf": [
                {"type": "array", "items": point, "minItems": 1},
                {**point, "additionalProperties": point},
                {"type": "null"},
            ],
        },
        "exclude": {
            "description": "every run that has all values of one of these mappings is left out",
            "anyOf": [{"type": "array", "items": point}, {"type": "null"}],
        },
    }
    return {
        "type": ["object", "null"],
        "description": "axes and their values; every combination is a run",
        "properties": forms,
        "additionalProperties": values,
    }


def _tune() -> dict[str, Any]:
    values = {"anyOf": [{"type": "array", "minItems": 1}, {"type": "string"}, {"type": "object"}]}
    return {
        "type": ["object", "null"],
        "description": "every arm tries the same grid first, and is then run at its best point",
        "properties": {
            "grid": {
                "type": "object",
                "description": "axes and their values, as in sweep",
                "minProperties": 1,
                "additionalProperties": values,
            },
            "seeds": {**values, "description": "of the trials; not those of the sweep"},
            "measure": {
                "type": "string",
                "description": "what decides, on examples held out by data.validation",
                "default": DEFAULT_MEASURE,
            },
        },
        "required": ["grid", "seeds"],
        "additionalProperties": False,
    }


def _claims() -> dict[str, Any]:
    text = {"type": "string"}
    selector = {
        "anyOf": [text, {"type": "object", "minProperties": 1}],
        "description": "an arm's name, the label of one axis, or a mapping of axes to values",
    }
    compare = {"type": "object", "properties": {"left": selector, "right": selector},
               "required": ["left"], "additionalProperties": False}  # fmt: skip
    claim = {
        "says": {**text, "description": "the claim in a sentence"},
        "measure": {**text, "description": f"one of {', '.join(MEASURES)}, with its arguments"},
        "compare": compare,
        "expect": {
            **text,
            "description": "as difference >= 0.01, ratio <= 0.5, mean >= 0.6, matches within 0.01",
        },
        "floor": {**text, "description": "as final(test_accuracy) >= 0.3; below it, undecided"},
        "paired": {"type": ["boolean", "null"], "description": "pair the runs by seed"},
        "source": {**text, "description": "where the claim comes from"},
    }
    return {
        "type": "array",
        "description": "sentences that the runs decide, registered before the first step",
        "items": {
            "type": "object",
            "properties": claim,
            "required": [key for key, needed in KEYS.items() if needed],
            "additionalProperties": False,
        },
    }


def _call_of(entries: dict[str, Any], kind: str, overrides: dict[str, Any]) -> dict[str, Any]:
    names = {"enum": list(entries)}
    by_path = {"type": "string", "pattern": ENTRY_BY_PATH}
    variants: list[dict[str, Any]] = [names, by_path]
    for name, entry in entries.items():
        schema = _fields(entry.load(), kind)
        schema["properties"] = {"name": {"const": name}, **schema["properties"]}
        schema["required"] = ["name"]
        if entry.summary:
            schema["description"] = entry.summary
        variants.append({**schema, **overrides})
        if kind in dialects.SECTIONS and (spoken := dialects_of(name)):
            variants.append({**_in_dialect(schema, spoken), **overrides})
    free = {"type": "object", "properties": {"name": by_path}, "required": ["name"]}
    return {"anyOf": [*variants, free]}


def _in_dialect(schema: dict[str, Any], spoken: list[Dialect]) -> dict[str, Any]:
    """The same for a call with a `dialect`: with the keys that the libraries' layers have."""
    name = schema["properties"]["name"]["const"]
    arguments = {key for library in spoken for key in library.layers[name].arguments}
    own = {key: value for key, value in schema["properties"].items() if key in arguments}
    if "momentum" in own and any(library.rate_of_new for library in spoken):
        own["momentum"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    about = "a library, whose defaults and meanings hold"
    chosen = {"enum": [*(library.name for library in spoken), None], "description": about}
    return {**schema, "properties": {"name": {"const": name}, dialects.KEY: chosen, **own}}


def _fields(called: Any, kind: str) -> dict[str, Any]:
    schema = fields_model(called, kind).model_json_schema()
    schema.pop("title", None)
    return {"type": "object", "properties": {}, **schema, "additionalProperties": False}
