"""Resolves one run: checks its sections, fills in defaults, and checks that all fit together."""

from typing import Any

from normlab.catalogue import AUGMENTATIONS, PROBES, SHARDINGS
from normlab.configs import build, evaluations, probes
from normlab.configs.cross_checks import mismatches
from normlab.configs.data_files import Settle
from normlab.configs.dialects import translate_dialects
from normlab.configs.document import Node, Problem, named, show
from normlab.configs.own_code import own_code
from normlab.configs.placing import is_own_placement
from normlab.configs.run_config import RunConfig, resolved
from normlab.configs.sections import COMMON, LENGTHS, OWN, SECTIONS, Section
from normlab.configs.signatures import (
    Checked,
    check_arguments,
    check_call,
    check_list,
    unknown_keys,
)
from normlab.errors import FieldError, UserError
from normlab.store.seeds import seed_of, setting_of


def resolve(config: Node, axes: dict[str, Any], settle: Settle) -> Checked[RunConfig | None]:
    """Check a config without its sweep, and fill in every default.

    Args:
        config: the config at one point of the sweep.
        axes: the value on each axis of the sweep.
        settle: finds the arguments that the files of the data decide.

    Returns:
        The resolved config, or None and everything that is wrong.
    """
    config, problems = translate_dialects(_with_own_norm(config))
    sections: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        given = config.get(name)
        if given is None and section.needed:
            names = ", ".join(section.shelf.entries()) if section.shelf else ""
            message = f"an experiment needs the key '{name}': one of {names}"
            problems.append(Problem(config.mark, message))
        elif section.needed or config.has(name) or (section.settings and not section.later):
            read = READERS.get(name, check_section)
            checked, found = read(given or Node({}, config.mark), name, section)
            sections[name], problems = checked, problems + found
    if not problems:
        problems += _settle(config, sections, settle) or _check_together(config, sections)
    if problems:
        return None, problems
    if sections.get("placement") and is_own_placement(sections):
        sections["placement"] = None  # such a run has the hash of one without the section
    whole = resolved(sections)
    problems = probes.check_together(config, whole) or evaluations.check_together(config, whole)
    if problems:
        return None, problems
    origins = {path: node.mark for path, node in config.walk()}
    return RunConfig(whole, origins, axes, own_code=own_code(whole)), []


def check_section(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check a section by itself: a call by its function's signature, settings by their class."""
    if isinstance(given.content, dict):
        if section.shelf is not None:
            return check_call(given, section.shelf, name)
        assert section.settings is not None
        return check_arguments(section.settings, name, given, name)
    wanted = "a mapping" if section.shelf is None else "a name or a mapping with a name"
    message = f"'{name}' must be {wanted}, found {show(given.value)}"
    if section.shelf is None and isinstance(given.content, str) and ":" in given.content:
        message += "; a space must follow the colon"
    return None, [Problem(given.mark, message)]


def _check_data(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check the keys that every dataset has, and the arguments of the one that is named."""
    if not isinstance(given.content, dict):
        return check_section(given, name, section)
    augment, problems = [], []
    listed = given.get("augment")
    if listed is not None:
        augment, problems = check_list(listed, "augment", AUGMENTATIONS, "augmentation")
    held_out = given.value.get("validation")
    number = isinstance(held_out, int) and not isinstance(held_out, bool)
    if held_out is not None and not number and held_out != OWN:
        allowed = f"a whole number, {OWN} or null"
        message = f"data: 'validation' must be {allowed}, found {show(held_out)}"
        problems.append(Problem(given.mark_at(("validation",)), message))
    shards, dealt = given.get("shards"), None
    if shards is not None and shards.content is not None:
        sharding = named(shards)
        if isinstance(sharding.content, dict):
            dealt, wrong = check_call(sharding, SHARDINGS, "shards")
            problems += wrong
        else:
            message = f"data: 'shards' must be a name or a mapping, found {show(shards.value)}"
            problems.append(Problem(shards.mark, message))
    call, found = check_section(given.without(*COMMON["data"]), name, section)
    if call is None or problems or found:
        return None, problems + found
    checked = {**call, "augment": augment, "validation": held_out}
    return checked if dealt is None else {**checked, "shards": dealt}, []


def _check_probes(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check the settings of the probes, and the list of the probes."""
    if not isinstance(given.content, dict):
        return check_section(given, name, section)
    settings, problems = check_section(given.without("measure"), name, section)
    calls, found = [], []
    measure = given.get("measure")
    if measure is None or not measure.value:
        message = f"probes needs the key 'measure': a list of {', '.join(PROBES.entries())}"
        found = [Problem(given.mark_at(("measure",)), message)]
    else:
        calls, found = check_list(measure, "measure", PROBES, "probe")
    names = [build.probe_name(call["name"]) for call in calls]
    for index, probe in enumerate(names):
        if measure is not None and not found and probe in names[:index]:
            message = f"the probe '{probe}' is measured twice; keep one"
            found.append(Problem(measure.mark_at((index,)), message))
    if settings is None or problems or found:
        return None, problems + found
    return {**settings, "at": probes.in_order(settings["at"]), "measure": calls}, []


def _check_train(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check the settings of training, in which the seed may be a mapping of streams to numbers."""
    seed = given.get("seed")
    if seed is None or not isinstance(seed.content, dict):
        return check_section(given, name, section)
    problems = []
    try:
        setting = setting_of(seed_of(seed.value))
    except FieldError as error:
        setting, problems = None, [Problem(seed.mark, f"train: {error}")]
    checked, found = check_section(given.without("seed"), name, section)
    if checked is None or problems:
        return None, problems + found
    return {**checked, "seed": setting}, found


def _with_own_norm(config: Node) -> Node:
    """Return the config with `norm: own` if a person's own model has no `norm` beside it."""
    model = config.value.get("model")
    own = isinstance(model, dict) and ":" in str(model.get("name"))
    if not own or config.value.get("norm") is not None:
        return config
    return config.put(("norm",), Node.of({"name": OWN}, config.mark_at(("model",))))


def _check_norm(given: Node, name: str, section: Section) -> Checked[dict[str, Any] | None]:
    """Check the arguments of the normaliser, and the layers that it replaces in an own model."""
    if not isinstance(given.content, dict):
        return check_section(given, name, section)
    where, problems = given.value.get("where"), []
    several = isinstance(where, list) and where and all(isinstance(one, str) for one in where)
    if where is not None and not isinstance(where, str) and not several:
        message = f"norm: 'where' must be a pattern or a list of patterns, found {show(where)}"
        problems = [Problem(given.mark_at(("where",)), message)]
    if given.value.get("name") == OWN:
        found = unknown_keys(given.without("name"), (), f"norm '{OWN}'")
        return (None if found else {"name": OWN}), found
    call, found = check_section(given.without(*COMMON["norm"]), name, section)
    if call is None or problems or found:
        return None, problems + found
    return call if where is None else {**call, "where": where}, []


READERS = {
    "data": _check_data,
    "norm": _check_norm,
    "probes": _check_probes,
    "train": _check_train,
    "evaluate": evaluations.check_evaluate,
}
"""The sections that have more keys than the function that they name, or than their settings."""


def _settle(config: Node, sections: dict[str, Any], settle: Settle) -> list[Problem]:
    """Fill in the arguments that the files of the data decide, such as the number of examples."""
    try:
        sections["data"] |= settle(sections)
    except UserError as error:
        field = (error.field,) if isinstance(error, FieldError) else ()
        return [Problem(config.mark_at(("data", *field)), f"data: {error}")]
    return []


def _check_together(config: Node, sections: dict[str, Any]) -> list[Problem]:
    """Return the mistakes that only show when the sections meet: learning rate, lengths, shapes."""
    problems = _check_learning_rate(config, sections)
    if problems:
        # The other sections can still be checked without these two.
        sections = {**sections, "optimizer": None, "schedule": None}
    for error in mismatches(sections):
        path = (error.section, error.field) if error.field else (error.section,)
        problems.append(Problem(config.mark_at(path), f"{error.section}: {error}"))
    return problems


def _check_learning_rate(config: Node, sections: dict[str, Any]) -> list[Problem]:
    """Check that the learning rate is given once, and fill in the lengths of the schedule."""
    optimizer, schedule = sections["optimizer"], sections.setdefault("schedule", None)
    rate = optimizer.get("learning_rate")
    if schedule is not None and rate is not None:
        message = "the learning rate is given twice, here and by 'schedule'; keep one"
        return [Problem(config.mark_at(("optimizer", "learning_rate")), message)]
    if schedule is None and rate is None and build.needs_learning_rate(optimizer["name"]):
        message = (
            f"optimizer {optimizer['name']} needs the key 'learning_rate': a number; "
            "or give a 'schedule'"
        )
        return [Problem(config.mark_at(("optimizer",)), message)]
    if schedule is None:
        optimizer.setdefault("learning_rate", None)
        return []
    optimizer.pop("learning_rate", None)
    try:
        steps = build.total_steps(sections)
    except Exception:
        return []  # `mismatches` raises it again and reports it
    for length in LENGTHS:
        if length in schedule and schedule[length] is None:
            schedule[length] = steps
    return []
