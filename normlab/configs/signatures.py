"""Reads the keys of a section from the signature of the function or class that it calls.

There is no second description: a new field of a dataclass, a module or an optax function is a new
key of the config, with its type and default. Pydantic checks the values and writes the JSON schema.
"""

import dataclasses
import inspect
import json
import pathlib
import re
import typing
from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Literal, TypeVar

import pydantic

from normlab.adapters.own_model import dataclass_in, parameters_of, types_of
from normlab.catalogue import UntrustedError
from normlab.configs.document import Node, Problem, named, show
from normlab.configs.own_code import failure_outside, not_run
from normlab.configs.paths import paths_beside_config
from normlab.configs.sections import OWN_MODEL, RANGE, elsewhere, section
from normlab.data.described import hashable
from normlab.errors import FieldError, UserError, did_you_mean
from normlab.models.slots import Dtype, is_ours

T = TypeVar("T")
Checked = tuple[T, list[Problem]]
"""The result of reading a part of a config, and everything that is wrong with that part."""


@cache
def fields_model(called: Callable[..., Any], kind: str = "") -> type[pydantic.BaseModel]:
    """Return a pydantic model of the arguments of `called` that a config may give."""
    filled, optional = section(kind).filled_in, section(kind).optional
    if kind == OWN_MODEL:
        hints, parameters = _hints_outside(called), parameters_of(called)
    else:
        hints = typing.get_type_hints(called) if isinstance(called, type) else {}
        parameters = inspect.signature(called).parameters
    about, fields = descriptions(called), {}
    for name, parameter in parameters.items():
        if name in filled:
            continue
        kind_of_value = hints.get(name) or (Any if kind == OWN_MODEL else _type_of(parameter))
        default = parameter.default
        if name in optional and default is inspect.Parameter.empty:
            kind_of_value, default = kind_of_value | None, None
        given = ... if default is inspect.Parameter.empty else default
        fields[name] = (kind_of_value, pydantic.Field(given, description=about.get(name)))
    config = pydantic.ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )
    # Optax makes some of its functions by `functools.partial`, which has no name.
    name = getattr(called, "__name__", kind)
    return pydantic.create_model(name, __config__=config, **fields)


def _hints_outside(called: Any) -> dict[str, Any]:
    """Return the types of the arguments of a person's own code that YAML can have values of."""
    return {name: hint for name, hint in types_of(called).items() if _is_plain_type(hint)}


def _is_plain_type(hint: Any) -> bool:
    try:
        pydantic.TypeAdapter(hint).json_schema()
    except Exception:  # pydantic has an error for each of the many things that are no JSON
        return False
    return True


def _has_plain_default(called: Any, name: str) -> bool:
    return name not in section(OWN_MODEL).optional and _is_plain(
        parameters_of(called)[name].default
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


@cache
def descriptions(called: Any) -> dict[str, str]:
    """Return the description of each field in the docstrings of a class and its parents.

    >>> from normlab.training.recipe import Recipe
    >>> descriptions(Recipe)["batch_size"]
    'examples in one optimiser step (the SGD batch).'
    """
    found: dict[str, str] = {}
    for one in reversed(called.__mro__) if isinstance(called, type) else [called]:
        doc = inspect.cleandoc(one.__doc__ or "")
        section = re.search(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)*)", doc, re.MULTILINE)
        for name, text in _FIELD.findall(section[1]) if section else ():
            found[name] = " ".join(text.split())
    return found


_FIELD = re.compile(r"^ {4}(\w+):((?:.*\n?)(?: {5,}.*\n?|\n(?= {5}))*)", re.MULTILINE)


def _type_of(parameter: inspect.Parameter) -> Any:
    """Return the type of an argument of optax in a config, mostly that of its default.

    Optax's annotations admit arrays and callables, which a config cannot give.
    """
    name, default = parameter.name, parameter.default
    if isinstance(default, bool | int | float):
        return type(default)
    if default is inspect.Parameter.empty:
        return int if name.endswith("steps") else Any if "kwargs" in name else float
    if name.endswith("dtype"):
        return Dtype | None
    admitted = typing.get_args(parameter.annotation)
    return next((kind | None for kind in (float, int) if kind in admitted), Any)


def check_list(given: Node, key: str, shelf: Any, subject: str) -> Checked[list[dict[str, Any]]]:
    """Check a list of calls, each a name or a mapping with a name, that stands under `key`."""
    if not isinstance(given.content, list):
        message = f"'{key}' must be a list of {subject}s, found {show(given.value)}"
        return [], [Problem(given.mark, message)]
    calls, problems = [], []
    for item in map(named, given.content):
        if not isinstance(item.content, dict):
            article = "an" if subject[0] in "aeiou" else "a"
            found = show(item.value)
            message = f"{article} {subject} is a name or a mapping with a name, found {found}"
            problems.append(Problem(item.mark, message))
            continue
        call, wrong = check_call(item, shelf, subject)
        problems += wrong
        calls += [call] if call is not None else []
    return calls, problems


def check_call(call: Node, shelf: Any, subject: str) -> Checked[dict[str, Any] | None]:
    """Check a mapping `{name: ..., arguments}` by the signature of the entry that it names."""
    name = call.value.get("name")
    here = call.mark_at(("name",))
    if not isinstance(name, str):
        names = ", ".join(shelf.entries())
        found = f", found {show(name)}" if "name" in call.value else ""
        return None, [Problem(here, f"'{subject}' needs a name: one of {names}{found}")]
    arguments = call.without("name")
    try:
        called = shelf.load(name)
        own = subject == "model" and not is_ours(called)
        kind = OWN_MODEL if own else subject
        fields, problems = check_arguments(called, kind, arguments, f"{subject} {name}")
        if fields is not None:
            fields |= paths_beside_config(called, fields, arguments)
    except UntrustedError as error:
        return None, [not_run(error.name, here)]
    except UserError as error:
        return None, [Problem(here, str(error))]
    except (Exception, SystemExit) as error:
        if ":" not in name:
            raise  # an error in normlab's own code is not the user's mistake
        return None, [Problem(here, failure_outside(name, error))]
    return (None if fields is None else {"name": name, **fields}), problems


def check_arguments(
    called: Callable[..., Any], kind: str, given: Node, subject: str
) -> Checked[dict[str, Any] | None]:
    """Check arguments, and fill in the defaults.

    Args:
        called: a dataclass, a module or a function.
        kind: the section, which says what arguments a config need not or may not give.
        given: the arguments, a mapping.
        subject: the name of the called thing in messages.

    Returns:
        The arguments, or None and everything that is wrong with them.
    """
    model = fields_model(called, kind)
    stand_ins = section(kind).stand_ins
    problems = unknown_keys(given, model.model_fields, subject)
    plain = {key: value for key, value in given.value.items() if key in model.model_fields}
    try:
        # By way of JSON, pydantic takes a list for a tuple although it is strict otherwise.
        checked = model.model_validate_json(json.dumps(plain))
    except pydantic.ValidationError as error:
        errors = error.errors()
        problems += [_problem(one, model, given, subject, kind) for one in errors]
        wrong = {one["loc"][0] for one in errors if one["loc"]}
        if kind == OWN_MODEL:
            return None, problems
        fine = {key: hashable(plain[key]) for key in plain if key not in wrong}
        return None, problems + _field_problems(called, {**stand_ins, **fine}, given, subject)
    free = {
        n: plain[n] for n, f in model.model_fields.items() if f.annotation is Any and n in plain
    }
    values = {**checked.model_dump(), **free}
    if kind == OWN_MODEL:
        # A default that YAML cannot express is left to the code.
        values = {n: v for n, v in values.items() if n in plain or _has_plain_default(called, n)}
        # The network is only made when the data are known.
        return (None if problems else values), problems
    problems += _field_problems(called, {**stand_ins, **values}, given, subject)
    return (None if problems else values), problems


def _field_problems(
    called: Callable[..., Any], values: dict[str, Any], given: Node, subject: str
) -> list[Problem]:
    """Return the complaints of a class itself about its values, one for each field."""
    problems: list[Problem] = []
    if not isinstance(called, type):
        return problems  # optax's functions check little, and calling them is not free
    values = dict(values)
    while True:
        try:
            called(**values)
        except FieldError as error:
            problems.append(Problem(given.mark_at((error.field,)), f"{subject}: {error}"))
            if error.field not in values:
                return problems
            del values[error.field]  # its default stands in, so that the next field is seen
        except TypeError:
            return problems  # a required field is missing, and pydantic has reported it
        else:
            return problems


def _problem(
    error: Any, model: type[pydantic.BaseModel], given: Node, subject: str, kind: str
) -> Problem:
    field, *rest = error["loc"] or ("",)
    annotation, path = model.model_fields[field].annotation, (field,)
    while rest and (settings := dataclass_in(annotation)):
        path = (*path, rest.pop(0))
        if error["type"] == "unexpected_keyword_argument" and not rest:
            return unknown_keys(given.at(path[:-1]), types_of(settings), f"{subject} {field}")[0]
        annotation = types_of(settings)[path[-1]]
    wanted, field = describe_type(annotation), ".".join(path)
    if error["type"] == "missing":
        if kind == OWN_MODEL and annotation is Any:
            wanted += "; if YAML cannot write it, name a function of the file that makes the model"
        return Problem(given.mark_at(path[:-1]), f"{subject} needs the key '{field}': {wanted}")
    indices = tuple(index for index in rest if isinstance(index, int))
    found = given.find((*path, *indices)) or given.at(path)
    if error["type"] == "finite_number":
        wanted = wanted.replace("number", "finite number")
    message = f"{subject}: '{field}' must be {wanted}, found {show(found.value)}"
    if isinstance(found.content, str) and RANGE.fullmatch(found.content):
        message += "; a range is an axis of the sweep"
    return Problem(found.mark, message)


def unknown_keys(given: Node, known: Collection[str], subject: str) -> list[Problem]:
    """Return a mistake for each key of a mapping that is not a known one."""
    problems = []
    for key, node in given.content.items():
        if key not in known:
            shown = f"'{key}'" if isinstance(key, str) else show(key)
            hint = did_you_mean(str(key), known) if known else "it has none"
            place = None if hint.startswith("did") else elsewhere(str(key))
            if place is not None and place[1] != subject:
                hint = f"did you mean '{place[0]}' in '{place[1]}'?"
            problems.append(Problem(node.key_mark, f"{subject} has no key {shown}; {hint}"))
    return problems


def fits(annotation: Any, value: Any) -> bool:
    """Return whether a plain value is of a type.

    >>> fits(str | None, None), fits(bool | None, "yes")
    (True, False)
    """
    try:
        pydantic.TypeAdapter(annotation).validate_python(value, strict=True)
    except pydantic.ValidationError:
        return False
    return True


def describe_type(annotation: Any) -> str:
    """Return a type in words.

    >>> describe_type(int | None), describe_type(tuple[int, ...])
    ('a whole number or null', 'a list of whole numbers')
    """
    plain = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        pathlib.Path: "a file or folder",
        type(None): "null",
        Any: "a value",
    }
    if annotation in plain:
        return plain[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        inner = describe_type(arguments[0])
        plural = inner.removeprefix("a ") + "s"
        words = plural if inner.startswith("a ") else f"values, each {inner}"
        return f"a list of {words}"
    if origin is dict:
        return "a mapping"
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return f"a mapping of {', '.join(one.name for one in dataclasses.fields(annotation))}"
    kinds = [describe_type(one) for one in arguments if one is not type(None)]
    if len(kinds) < len(arguments):
        kinds.append("null")
    *first, last = kinds or [str(annotation)]
    if first and first[0] == "true or false":
        first[0] = "true, false"
    return f"{' or '.join(first)} or {last}" if first else last
