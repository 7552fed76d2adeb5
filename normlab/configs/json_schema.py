"""Makes the JSON schema of a config, for editors that complete and check YAML as it is typed."""

from typing import Any

from normlab.catalogue import AUGMENTATIONS, ENGINES, POLICIES, PROBES, SHARDINGS
from normlab.configs import dialects
from normlab.configs.claims import ARMS, keys
from normlab.configs.learning_rate import RATE
from normlab.configs.sections import (
    CALLS,
    COMMON,
    FORMS,
    OTHERS,
    OWN,
    RANGE,
    SECTIONS,
    TARGET,
    WORDS,
)
from normlab.configs.signatures import fields_model
from normlab.configs.tune import Tune
from normlab.dialects.library import Dialect, dialects_of
from normlab.measures.claims import Claim
from normlab.measures.measures import MEASURES, METRICS
from normlab.store.seeds import STREAMS

ENTRY_BY_PATH = r"^[\w.]+:\w+$"
_NUMBER = r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"
_TAKEN = {"metric": f"({'|'.join(METRICS)})", "number": _NUMBER}
"""The patterns of a measure's arguments; of other kinds the schema says nothing."""


def _call(name: str) -> str:
    """Return the pattern of one measure."""
    taken = [_TAKEN.get(kind, "[^,()]+") for kind in MEASURES[name].takes]
    more = "".join(r"(,[^,()]+)?" for _ in MEASURES[name].may_take)
    inner = r"\s*,\s*".join(taken)
    return name + (rf"\s*\(\s*{inner}\s*{more}\s*\)" if taken else r"(\s*\(\s*\))?")


_MEASURE = rf"\s*({'|'.join(map(_call, MEASURES))})\s*"
MEASURE = f"^{_MEASURE}$"
FLOOR = rf"^{_MEASURE}(<=|>=)\s*{_NUMBER}\s*$"
EXPECT = (
    rf"^\s*((difference|ratio|mean)\s*(<=?|>=?)\s*{_NUMBER}|"
    rf"(matches\s+within|differs\s+by\s+more\s+than)\s+{_NUMBER})\s*$"
)


def json_schema() -> dict[str, Any]:
    """Return a JSON schema (2020-12) of every config that `normlab check` accepts.

    The schema accepts a few others too, because it cannot express every check.
    """
    properties: dict[str, Any] = {
        key: {"type": "string", "description": text} for key, text in WORDS.items()
    }
    for name, section in SECTIONS.items():
        if section.shelf is not None:
            # A config may extend another and take the name from there.
            properties[name] = _section(name, {"required": []})
        if section.settings is not None:
            properties[name] = _fields(section.settings, name)
    measure = {"type": "array", "items": _call_of(PROBES.entries(), "probe", {}), "minItems": 1}
    measure["description"] = "the probes"
    probes = properties["probes"]
    probes |= {
        "type": ["object", "null"],
        "properties": {**probes["properties"], "measure": measure},
    }
    seed = properties["train"]["properties"]["seed"]
    numbers = [{"type": "integer"}, *_values({"type": "integer"})["anyOf"][:2]]
    seed |= {"anyOf": [{"type": seed.pop("type")}, _split({"anyOf": numbers})]}
    properties["evaluate"] = _evaluate(properties["evaluate"])
    properties["target"] = _fields(TARGET.settings, "target")
    definitions = _definitions(properties)
    axes = {name: _values({"$ref": f"#/$defs/{name}"}) for name in definitions}
    axes["seed"]["anyOf"].append(_split({"anyOf": numbers}))
    axes |= {f"train.{name}": axes[name] for name in properties["train"]["properties"]}
    properties |= {"sweep": _sweep(axes), "tune": _tune(axes), "claims": _claims()}
    properties["baseline"] = {"type": ["string", "number", "null"]}
    look = {"type": "integer", "minimum": 2}
    properties["looks"] = {"type": ["array", "null"], "items": look, "minItems": 1}
    properties["looks"]["uniqueItems"] = True
    properties["engine"] = _call_of(ENGINES.entries(), "engine", {})
    properties["engine"]["anyOf"].append({"type": "null"})
    for key, text in OTHERS.items():
        properties[key]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "normlab experiment",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _evaluate(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of `evaluate`: a policy, several, or settings with the policies."""
    one = _call_of(POLICIES.entries(), "policy", {})
    labelled = {"type": "object", "minProperties": 1, "additionalProperties": one}
    labelled["propertyNames"] = {"pattern": r"^[A-Za-z_]\w*$"}
    several = {"type": "array", "items": one, "minItems": 1}
    policy = {"anyOf": [one, several, labelled], "description": "the policies"}
    own = settings["properties"]
    for key in ("stream", "batch_size", "corruptions"):
        inner = own[key].get("items") or own[key]["anyOf"][0]["items"]
        own[key] = {"anyOf": [own[key], inner]}
    whole = {**settings, "properties": {**own, "policy": policy}, "required": ["policy"]}
    return {"anyOf": [one, several, whole, {"type": "null"}]}


def _definitions(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one value of each axis that is a section or a setting of `train`."""
    values = {name: _section(name, {}) for name in CALLS}
    return {**values, **properties["train"]["properties"], RATE[0]: {"type": "number"}}


def _section(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a section that names a call."""
    schema, common = _call_of(CALLS[name].entries(), name, overrides), _common(name)
    for variant in schema["anyOf"]:
        if "properties" in variant:
            variant["properties"] |= common
    if name == "norm":
        own = {"type": "object", "properties": {"name": {"const": OWN}}, "required": ["name"]}
        schema["anyOf"] += [{"const": OWN}, {**own, "additionalProperties": False}]
    if not SECTIONS[name].needed:
        schema["anyOf"].append({"type": "null"})
    return schema


def _common(name: str) -> dict[str, Any]:
    """Return the schemas of the keys that a section has beside the arguments of its call."""
    if name not in COMMON:
        return {}
    kinds: dict[str, dict[str, Any]] = {
        "augment": {
            "type": "array",
            "items": _call_of(AUGMENTATIONS.entries(), "augmentation", {}),
        },
        "shards": {"anyOf": [_call_of(SHARDINGS.entries(), "shards", {}), {"type": "null"}]},
        "validation": {"anyOf": [{"type": ["integer", "null"]}, {"const": OWN}]},
        "where": {"type": ["string", "array", "null"], "items": {"type": "string"}, "minItems": 1},
    }
    return {key: {**kinds[key], "description": text} for key, text in COMMON[name].items()}


def _values(one: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the values of an axis, where `one` is that of each value."""
    return {
        "description": "a list of values, a range as in 0..4, or a mapping of labels to values",
        "anyOf": [
            {"type": "array", "minItems": 1, "items": one},
            {"type": "string", "pattern": f"^{RANGE.pattern}$"},
            {"type": "object", "minProperties": 1, "additionalProperties": one},
        ],
    }


def _split(number: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a seed that is split into streams, where `number` is that of each."""
    streams = dict.fromkeys(STREAMS, number)
    return {"type": "object", "properties": streams, "additionalProperties": False,
            "minProperties": 1}  # fmt: skip


def _sweep(axes: dict[str, Any]) -> dict[str, Any]:
    point = {"type": "object", "minProperties": 1}
    listed = {**point, "properties": {name: {"$ref": f"#/$defs/{name.removeprefix('train.')}"}
                                      for name in axes}}  # fmt: skip
    tied = {**point, "properties": axes, "additionalProperties": _values({})}
    shapes = {
        "zip": [tied, {"type": "array", "items": tied}, {"type": "null"}],
        "list": [
            {"type": "array", "items": listed, "minItems": 1},
            {**point, "additionalProperties": listed},
            {"type": "null"},
        ],
        "exclude": [{"type": "array", "items": point}, {"type": "null"}],
    }
    forms = {form: {"description": FORMS[form], "anyOf": kinds} for form, kinds in shapes.items()}
    return {
        "type": ["object", "null"],
        "properties": {**axes, **forms},
        "additionalProperties": _values({}),
        "propertyNames": {"anyOf": [{"enum": [*SECTIONS, *axes, *forms]}, {"pattern": r"\."}]},
    }


def _tune(axes: dict[str, Any]) -> dict[str, Any]:
    schema = _fields(Tune, "tune")
    schema["properties"]["grid"] |= {
        "minProperties": 1,
        "properties": axes,
        "additionalProperties": _values({}),
    }
    schema["properties"]["seeds"] |= _values({"type": "integer"}) | {
        "description": schema["properties"]["seeds"]["description"]
    }
    schema["properties"]["measure"]["pattern"] = MEASURE
    return {**schema, "type": ["object", "null"]}


def _claims() -> dict[str, Any]:
    schema = _fields(Claim, "claims")
    own = schema["properties"]
    arms = {name: own.pop(name) for name in ARMS}
    compare = {
        "type": "object",
        "properties": arms,
        "required": ["left"],
        "additionalProperties": False,
        "description": "the arm that the claim is about, and the arm that it is compared with; "
        "across an axis, their difference at one value is compared with that at another",
    }
    two = {"type": "array", "minItems": 2, "maxItems": 2, "uniqueItems": True}
    arms["across"]["anyOf"] = [
        {"type": "string", "minLength": 1},
        {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": two},
        {"type": "null"},
    ]
    for key, pattern in {"measure": MEASURE, "expect": EXPECT, "floor": FLOOR}.items():
        own[key]["pattern"] = pattern  # which null passes, because it is no string
    needed = [key for key, is_needed in keys().items() if is_needed]
    item = {**schema, "properties": {**own, "compare": compare}, "required": needed}
    return {"type": "array", "items": item}


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
    """Return the schema of a call with a `dialect`, with the keys of the libraries' layers."""
    name = schema["properties"]["name"]["const"]
    arguments = {key for library in spoken for key in library.layers[name].arguments}
    own = {key: value for key, value in schema["properties"].items() if key in arguments}
    if "momentum" in own and any(library.rate_of_new for library in spoken):
        own["momentum"] = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    about = "the library whose defaults and meanings the keys have"
    chosen = {"enum": [*(library.name for library in spoken), None], "description": about}
    return {**schema, "properties": {"name": {"const": name}, dialects.KEY: chosen, **own}}


def _fields(called: Any, kind: str) -> dict[str, Any]:
    schema = fields_model(called, kind).model_json_schema()
    schema.pop("title", None)
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"type": "object", "properties": {}, **schema, "additionalProperties": False}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Put a definition, such as that of a nested mapping, in the place of each reference to it."""
    if isinstance(value, list):
        return [_inlined(one, definitions) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        definition = definitions[value["$ref"].rpartition("/")[2]]
        return {"additionalProperties": False, **_inlined(definition, definitions)}
    return {key: _inlined(one, definitions) for key, one in value.items()}
