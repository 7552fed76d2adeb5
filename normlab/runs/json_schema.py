"""The JSON schema of a config, for editors that complete and check YAML as it is typed."""

from typing import Any

from normlab.catalogue import AUGMENTATIONS
from normlab.runs.schema import CALLS, COMMON_TO_DATA, RANGE, SETTINGS, WORDS, fields_model

ENTRY_BY_PATH = r"^[\w.]+:\w+$"


def json_schema() -> dict[str, Any]:
    """A JSON schema (2020-12) that accepts every config `normlab check` accepts, and few others."""
    properties: dict[str, Any] = {
        key: {"type": "string", "description": text} for key, text in WORDS.items()
    }
    for section in CALLS:
        properties[section] = _call(section)
    augment = {"type": "array", "items": _call_of(AUGMENTATIONS.entries(), "augmentation", {})}
    augment["description"] = COMMON_TO_DATA["augment"]
    validation = {"type": ["integer", "null"], "description": COMMON_TO_DATA["validation"]}
    for variant in properties["data"]["anyOf"]:
        if "properties" in variant:
            variant["properties"] |= {"augment": augment, "validation": validation}
    properties["schedule"]["anyOf"].append({"type": "null"})
    for section, settings in SETTINGS.items():
        properties[section] = _fields(settings, "")
    properties["sweep"] = _sweep()
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


def _call(section: str) -> dict[str, Any]:
    partial = {"required": []}  # a config that extends another may leave the name to it
    return _call_of(CALLS[section].entries(), section, partial)


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
    free = {"type": "object", "properties": {"name": by_path}, "required": ["name"]}
    return {"anyOf": [*variants, free]}


def _fields(called: Any, kind: str) -> dict[str, Any]:
    schema = fields_model(called, kind).model_json_schema()
    schema.pop("title", None)
    return {"type": "object", "properties": {}, **schema, "additionalProperties": False}
