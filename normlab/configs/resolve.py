"""One run's config, resolved: checked, every default filled in, and identified by its hash."""

import re
from typing import Any

from normlab.catalogue import AUGMENTATIONS, PROBES
from normlab.configs import build, probes
from normlab.configs.calls import check_list, check_named
from normlab.configs.cross_checks import mismatches
from normlab.configs.dialects import translate_dialect
from normlab.configs.document import Document, Problem
from normlab.configs.identity import ABSENT_IF, without
from normlab.configs.own_code import own_code
from normlab.configs.run_config import SECTIONS, RunConfig
from normlab.configs.sections import CALLS, LENGTHS, OWN, REQUIRED, SETTINGS, TOP_LEVEL, WORDS
from normlab.configs.signatures import check_arguments, show
from normlab.errors import FieldError, UserError, did_you_mean
from normlab.store.names import without_marks

FOLDER_NAME = re.compile(r"\w[\w .=+-]{0,99}")


def resolve(document: Document, axes: dict[str, Any]) -> tuple[RunConfig | None, list[Problem]]:
    """Check a document without its sweep, and fill in every default.

    Returns:
        The resolved config, or None and everything that is wrong.
    """
    _settle_norm(document)
    problems = _check_top_level(document) + translate_dialect(document)
    sections: dict[str, Any] = {}
    for section in CALLS:
        if document.value.get(section) is not None or section in REQUIRED & document.value.keys():
            sections[section], found = _check_call(document, section)
            problems += found
    for section, settings in SETTINGS.items():
        if section == "target" and section not in document.value:
            continue
        if section not in document.value:
            document.replace((section,), Document(document.source, {}))
        sections[section], found = _check_settings(document, section, settings)
        problems += found
    if document.value.get("probes") is not None:
        sections["probes"], found = _check_probes(document)
        problems += found
    if not problems:
        problems += _settle(document, sections) or _check_together(document, sections)
    if problems:
        return None, problems
    origins = {path: str(mark) for path, mark in document.marks.items()}
    resolved = _resolved(sections)
    return RunConfig(resolved, origins, axes, own_code=own_code(resolved)), []


def _resolved(sections: dict[str, Any]) -> dict[str, Any]:
    """Checked sections as a run has them."""
    return without({section: _plain(sections.get(section)) for section in SECTIONS}, ABSENT_IF)


def _plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them, at every depth."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _settle(document: Document, sections: dict[str, Any]) -> list[Problem]:
    """Write down what the files of the data decide: how many examples a smaller copy holds."""
    try:
        sections["data"] |= build.settled(sections)
    except UserError as error:
        field = (error.field,) if isinstance(error, FieldError) else ()
        return [Problem(document.mark(("data", *field)), f"data: {error}")]
    return []


def _settle_norm(document: Document) -> None:
    """Write down that a person's own model keeps its own layers where no `norm` is given."""
    model = document.value.get("model")
    own = isinstance(model, dict) and ":" in str(model.get("name"))
    if own and document.value.get("norm") is None:
        mark = document.mark(("model",))
        named = Document(document.source, {"name": OWN}, {(): mark, ("name",): mark})
        document.replace(("norm",), named)


def _check_top_level(document: Document) -> list[Problem]:
    problems = []
    for key, value in document.value.items():
        if key not in TOP_LEVEL:
            shown = f"'{key}'" if isinstance(key, str) else show(key)
            message = f"an experiment has no key {shown}; {did_you_mean(str(key), TOP_LEVEL)}"
            problems.append(Problem(document.key_mark((key,)), message))
        elif key in WORDS and not isinstance(value, str):
            message = f"'{key}' must be text, found {show(value)}"
            problems.append(Problem(document.mark((key,)), message))
        elif key == "name" and not FOLDER_NAME.fullmatch(without_marks(value)):
            message = (
                "'name' names a folder: at most 100 letters, digits, spaces and any of _.=+-, "
                f"beginning with a letter or digit, found {show(value)}"
            )
            problems.append(Problem(document.mark((key,)), message))
    for section in CALLS:
        if section in REQUIRED and section not in document.value:
            names = ", ".join(CALLS[section].entries())
            message = f"an experiment needs the key '{section}': one of {names}"
            problems.append(Problem(document.mark(()), message))
    return problems


def _check_call(document: Document, section: str) -> tuple[dict[str, Any] | None, list[Problem]]:
    value = document.value[section]
    path = (section,)
    if not isinstance(value, dict):
        message = f"'{section}' must be a name or a mapping with a name, found {show(value)}"
        return None, [Problem(document.mark(path), message)]
    common, problems = COMMON[section](document) if section in COMMON else ({}, [])
    if section == "norm" and value.get("name") == OWN:
        return _check_own_norm(document, common)
    resolved, found = check_named(document, path, CALLS[section], section, skip=tuple(common))
    if resolved is None or problems or found:
        return None, problems + found
    return {**resolved, **common}, []


def _check_common(document: Document) -> tuple[dict[str, Any], list[Problem]]:
    """The keys that the section `data` has whatever it names."""
    value = document.value["data"]
    augment, problems = [], []
    if "augment" in value:
        path = ("data", "augment")
        augment, problems = check_list(document, path, AUGMENTATIONS, "augmentation")
    held_out = value.get("validation")
    number = isinstance(held_out, int) and not isinstance(held_out, bool)
    if held_out is not None and not number and held_out != OWN:
        allowed = f"a whole number, {OWN} or null"
        message = f"data: 'validation' must be {allowed}, found {show(held_out)}"
        problems.append(Problem(document.mark(("data", "validation")), message))
    return {"augment": augment, "validation": held_out}, problems


def _check_where(document: Document) -> tuple[dict[str, Any], list[Problem]]:
    """The keys that the section `norm` has whatever it names."""
    where = document.value["norm"].get("where")
    if "where" not in document.value["norm"]:
        return {}, []
    several = isinstance(where, list) and where and all(isinstance(one, str) for one in where)
    if where is not None and not isinstance(where, str) and not several:
        message = f"norm: 'where' must be a pattern or a list of patterns, found {show(where)}"
        return {"where": None}, [Problem(document.mark(("norm", "where")), message)]
    return ({} if where is None else {"where": where}), []


def _check_own_norm(
    document: Document, common: dict[str, Any]
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """`norm: own`, which only a person's own model can have."""
    model = document.value.get("model")
    if isinstance(model, dict) and ":" not in str(model.get("name")):
        message = f"norm '{OWN}' is the layers of a model of your own; {model.get('name')} has none"
        return None, [Problem(document.mark(("norm", "name")), message)]
    more = sorted(document.value["norm"].keys() - {"name"})
    if more:
        message = f"norm '{OWN}' has no key '{more[0]}'; it has none"
        return None, [Problem(document.key_mark(("norm", more[0])), message)]
    return {"name": OWN}, []


COMMON = {"data": _check_common, "norm": _check_where}


def _check_settings(
    document: Document, section: str, settings: type
) -> tuple[dict[str, Any] | None, list[Problem]]:
    value = document.value[section]
    path = (section,)
    if not isinstance(value, dict):
        message = f"'{section}' must be a mapping, found {show(value)}"
        if isinstance(value, str) and ":" in value:
            message += "; a space must follow the colon"
        return None, [Problem(document.mark(path), message)]
    return check_arguments(settings, section, document, path, section)


def _check_probes(document: Document) -> tuple[dict[str, Any] | None, list[Problem]]:
    value = document.value["probes"]
    path = ("probes", "measure")
    if not isinstance(value, dict):
        return _check_settings(document, "probes", probes.Probing)
    settings = document.part(("probes",))
    settings.value = {key: given for key, given in value.items() if key != "measure"}
    checked, problems = check_arguments(probes.Probing, "probes", settings, (), "probes")
    calls, found = [], []
    if not value.get("measure"):
        message = f"probes needs the key 'measure': a list of {', '.join(PROBES.entries())}"
        found = [Problem(document.mark(path), message)]
    else:
        calls, found = check_list(document, path, PROBES, "probe")
    names = [build.probe_name(call["name"]) for call in calls]
    for index, name in enumerate(names):
        if not found and name in names[:index]:
            message = f"the probe '{name}' is measured twice; keep one"
            found.append(Problem(document.mark((*path, index)), message))
    if checked is None or problems or found:
        return None, problems + found
    at = probes.in_order(checked["at"])
    return {**checked, "at": at, "measure": calls}, []


def _check_together(document: Document, sections: dict[str, Any]) -> list[Problem]:
    """What only shows when the sections meet: learning rate, lengths, shapes."""
    problems = _check_learning_rate(document, sections)
    if problems:
        # Neither is to blame for more than this; the other sections can still be judged.
        sections = {**sections, "optimizer": None, "schedule": None}
    for error in mismatches(sections):
        path = (error.section, error.field) if error.field else (error.section,)
        problems.append(Problem(document.mark(path), f"{error.section}: {error}"))
    return problems or probes.check_together(document, _resolved(sections))


def _check_learning_rate(document: Document, sections: dict[str, Any]) -> list[Problem]:
    """Whether it is given once; what a schedule or its absence leaves open is filled in."""
    optimizer, schedule = sections["optimizer"], sections.setdefault("schedule", None)
    rate = optimizer.get("learning_rate")
    if schedule is not None and rate is not None:
        message = "the learning rate is given twice, here and by 'schedule'; keep one"
        return [Problem(document.mark(("optimizer", "learning_rate")), message)]
    if schedule is None and rate is None and build.needs_learning_rate(optimizer["name"]):
        message = (
            f"optimizer {optimizer['name']} needs the key 'learning_rate': a number; "
            "or give a 'schedule'"
        )
        return [Problem(document.mark(("optimizer",)), message)]
    if schedule is None:
        optimizer.setdefault("learning_rate", None)
        return []
    optimizer.pop("learning_rate", None)
    try:
        steps = build.total_steps(sections)
    except Exception:
        return []  # it is raised again, and told, where the sections meet
    for length in LENGTHS:
        if length in schedule and schedule[length] is None:
            schedule[length] = steps
    return []
