"""Describes an entry, a section, a setting, a measure or a metric, for `normlab describe`."""

import importlib
import inspect
import re
import textwrap
from html import escape
from typing import Any

from normlab.catalogue import POLICIES, PROBES, allow, load_own, snake_case
from normlab.configs import sweep, tune
from normlab.configs.claims import ARMS, keys
from normlab.configs.document import flow
from normlab.configs.learning_rate import RATE
from normlab.configs.sections import (
    CALLS,
    COMMON,
    FORMS,
    OTHERS,
    SECTIONS,
    SETTINGS,
    WORDS,
    Target,
)
from normlab.configs.signatures import describe_type, descriptions, fields_model
from normlab.errors import UserError, did_you_mean
from normlab.interface.costs import cost_of
from normlab.interface.facts import facts_in_words
from normlab.interface.questions import told as asked
from normlab.interface.shelves import SHELVES
from normlab.measures import claims
from normlab.measures.measures import MEASURES, METRICS, described

BARE_RATE = (
    "the rate of the optimiser, or of the argument of the schedule that holds it; an override and "
    "an axis of the sweep need not say which"
)

EXPECTED = {
    "difference": "`difference >= 0.01`: left minus right is at least 0.01",
    "ratio": "`ratio <= 0.5`: left over right is at most 0.5",
    "mean": "`mean >= 0.6`: the mean of left is at least 0.6, and there is no right",
    "matches": "`matches within 0.01`: left minus right lies between -0.01 and 0.01",
    "differs": "`differs by more than 0.01`: left minus right lies below -0.01 or above 0.01",
}
"""The forms of `expect` in a claim, by their first word."""

WITHIN = re.compile(r"^(sweep|tune\.grid|(claims\.)?compare)\.")
"""The beginning of a name that holds other names: an axis of a sweep, an arm of a claim."""

MOST_PLACES = 88
"""A signature that is longer stands in several lines."""

PLAIN = {**SETTINGS, "target": Target}
"""The sections of plain settings."""


class Description(str):
    """A text that a notebook and a prompt show as it is."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre style='white-space: pre-wrap; font-family: monospace'>{escape(self)}</pre>"


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
    allow([what])  # whoever calls this in Python runs their own code anyway
    return Description(describe_entry(what))


def describe_entry(name: str) -> str:
    """Describe an entry of the catalogue, or a part of a config.

    Args:
        name: of an entry, a section, a setting such as `batch_size` or `claims.expect`, a measure
            such as `final` or `final(test_accuracy)`, or a metric.

    Raises:
        UserError: nothing has that name; the message has the nearest.
    """
    plain = WITHIN.sub("", name)
    for describe in (_section, _entry, _setting, _metric, _measure, _expected):
        found = describe(plain)
        if found is not None:
            return found
    everything = [
        *(*SECTIONS, *RATE, *OTHERS, *WORDS, *MEASURES, *METRICS, *_settings()),
        *(entry for shelf in SHELVES.values() for entry in shelf.entries()),
    ]
    close = did_you_mean(name, everything)
    hint = close if close.startswith("did") else "see `normlab list norms`, `models`, `data`, ..."
    raise UserError(f"nothing is called '{name}'; {hint}")


def _section(name: str) -> str | None:
    if name in PLAIN:
        lines = _arguments(name, PLAIN[name])
        if name == "probes":
            lines.append(f"measure: ...  # a list of {', '.join(PROBES.entries())}")
        if name == "evaluate":
            lines.append(f"policy: ...  # one, a list, labels: {', '.join(POLICIES.entries())}")
        text = _indent("\n".join(lines))
        example = f"In YAML, with every default:\n  {name}:\n{_indent(text)}"
        return _joined(f"{name} (section)", inspect.getdoc(PLAIN[name]), example)
    if name in CALLS:
        entries = {entry.name: entry.summary for entry in CALLS[name].entries().values()}
        about = f"{SECTIONS[name].about.capitalize()}. It names an entry: `{name}: NAME`, or"
        return _joined(
            f"{name} (section)",
            f"{about} `{name}: {{name: NAME, ...}}` with arguments.",
            _list("Keys beside the arguments", COMMON.get(name, {})),
            _list("Entries (`normlab describe NAME` says more)", entries),
        )
    if name == "claims":
        docs = descriptions(claims.Claim)
        docs |= {"compare": " ".join(f"{arm}: {docs[arm]}" for arm in ARMS)}
        told = {k if needed else f"{k} (optional)": docs[k] for k, needed in keys().items()}
        return _joined("claims (section)", inspect.getdoc(claims), _list("Keys", told))
    if name == "tune":
        told = _list("Keys", descriptions(tune.Tune))
        return _joined("tune (section)", inspect.getdoc(tune), told)
    if name == "sweep":
        return _joined(
            "sweep (section)", inspect.getdoc(sweep), _list("Keys that are not axes", FORMS)
        )
    told = {**WORDS, **OTHERS, RATE[0]: BARE_RATE}.get(name)
    return None if told is None else _joined(f"{name} (key of a config)", told)


def _entry(name: str) -> str | None:
    found = _find(name)
    if found is None:
        return None
    section, shelf = found
    called = shelf.load(name)
    function = _function_of(name, called)
    facts = getattr(called, "facts", None)
    cost = cost_of(name) if section == "norm" else None
    return _joined(
        f"{name} ({shelf.kind})",
        inspect.getdoc(called),
        f"In Python:\n{_indent(_signature(function))}" if function is not None else None,
        f"In YAML, with every default:\n{_indent(_example(section, name, called))}",
        "Facts:\n" + _indent("\n".join(facts_in_words(facts))) if facts is not None else None,
        textwrap.fill(f"Cost: {cost}", MOST_PLACES, break_on_hyphens=False) if cost else None,
        asked(name),
    )


def _settings() -> dict[str, str]:
    """Describe every setting, by its name with its section and by its name alone."""
    found = {}
    for section, called in {**PLAIN, "tune": tune.Tune, "claims": claims.Claim}.items():
        for field, about in fields_model(called, section).model_fields.items():
            whole = f"{section}.{field}"
            needed = "needed" if about.is_required() else f"default {flow(about.get_default())}"
            kind = f"It is {describe_type(about.annotation)}; {needed}."
            told = descriptions(called).get(field)
            found[whole] = _joined(f"{whole} (setting)", told, kind)
    bare = {whole.partition(".")[2]: text for whole, text in reversed(found.items())}
    return {**bare, **found}


def _setting(name: str) -> str | None:
    section, _, key = name.partition(".")
    if key in COMMON.get(section, {}):
        return _joined(f"{name} (setting)", COMMON[section][key])
    told = _settings().get(name)
    if name in ("expect", "claims.expect"):
        return _joined(told, _list("Its forms", dict.fromkeys(EXPECTED.values(), "")))
    return told


def _expected(name: str) -> str | None:
    """Describe a form of `expect`, by its first word with whatever follows it."""
    word = re.match(r"\w*", name.strip())[0]  # type: ignore[index]  # it always matches
    if word not in EXPECTED:
        return None
    told = f"{EXPECTED[word]}."
    signs = "A bound is written with <, <=, > or >=." if ">=" in told or "<=" in told else None
    return _joined(f"{word} (a form of claims.expect)", told, signs)


def _metric(name: str) -> str | None:
    if name not in METRICS:
        return None
    part, _, kind = name.partition("_")
    where = {"train": "batches of training", "test": "test split", "val": "examples held out"}
    needs = ["It needs `data.validation`."] if part == "val" else []
    needs += [] if kind in ("loss", "accuracy") else [f"It needs `train.metrics: [{kind}]`."]
    told = " ".join([f"The {kind.replace('_', ' ')} on the {where[part]}.", *needs])
    return _joined(f"{name} (metric)", told, f"Measures take it, as in final({name}).")


def _measure(name: str) -> str | None:
    """Describe a measure by its name, alone or with whatever follows it."""
    longest_first = "|".join(sorted(MEASURES, key=len, reverse=True))
    found = re.match(rf"({longest_first})(?![A-Za-z0-9])", name)
    if found is None:
        return None
    form = next(form for form in described() if form.split("(")[0] == found[1])
    kind = MEASURES[found[1]]
    better = kind.higher_is_better
    facts = [f"More of it is {'better' if better else 'worse'}."] * isinstance(better, bool)
    if "metric" in kind.takes:
        facts.append(f"The metrics are {', '.join(METRICS)}.")
    uses = f"It is written {form}. Claims, `tune.measure` and `normlab report --measure` take it."
    return _joined(
        f"{found[1]} (measure)", inspect.getdoc(kind.compute), uses, "\n".join(facts) or None
    )


def _list(title: str, told: dict[str, str]) -> str | None:
    """Write a title, and a line for each name below it; None if there is no name."""
    lines = [f"{name}: {text}" if text else name for name, text in told.items()]
    return f"{title}:\n" + _indent("\n".join(lines)) if lines else None


def _joined(*parts: str | None) -> str:
    return "\n\n".join(part for part in parts if part)


def _find(name: str) -> tuple[str, Any] | None:
    if ":" in name:
        section = _section_of(name)
        return section, SHELVES[section]
    shelves = SHELVES.items()
    return next(((section, shelf) for section, shelf in shelves if name in shelf.entries()), None)


def _section_of(name: str) -> str:
    """Find where a config names `package.module:Class`: as a normaliser, if it does not say."""
    try:
        kind = getattr(load_own(name), "catalogue_kind", None)
    except UserError:
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
    """Write how a function is imported and called; types have their last names alone."""
    signature = inspect.signature(function)
    arguments, name = [], function.__name__
    for argument in signature.parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and "*" not in "".join(arguments):
            arguments.append("*")
        arguments.append(_last_names(str(argument)))
    gives = _last_names(str(signature.replace(parameters=[])).removeprefix("()"))
    whole = [one.replace(" ", "\0") for one in arguments]  # lines are broken between arguments
    line = f"{name}({', '.join(whole)}){gives}"
    lines = textwrap.wrap(
        line, MOST_PLACES, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([f"from {_home(function)} import {name}", *lines]).replace("\0", " ")


def _last_names(text: str) -> str:
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])", "", text)


def _home(function: Any) -> str:
    """Return the shortest package that has the function, which is where a person imports it."""
    parts = function.__module__.split(".")
    homes = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next(
        (home for home in homes
         if getattr(importlib.import_module(home), function.__name__, None) is function),
        function.__module__,
    )  # fmt: skip


def _example(section: str, name: str, called: Any) -> str:
    lines = [f"name: {name}", *_arguments(section, called)]
    if section == "augmentation":
        return "data:\n  augment:\n    - " + "\n      ".join(lines)
    if section == "probe":
        return "probes:\n  measure:\n    - " + "\n      ".join(lines)
    if section == "sharding":
        return "data:\n  shards:\n" + _indent(_indent("\n".join(lines)))
    if section == "policy":
        return "evaluate:\n  policy:\n    - " + "\n      ".join(lines)
    return f"{section}:\n" + _indent("\n".join(lines))


def _arguments(section: str, called: Any) -> list[str]:
    lines = []
    for field, about in fields_model(called, section).model_fields.items():
        value = "..." if about.is_required() else flow(about.get_default())
        lines.append(f"{field}: {value}  # {describe_type(about.annotation)}")
    return lines


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
