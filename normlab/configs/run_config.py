"""One run's config, resolved: every default filled in, named for people, identified by its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from normlab.catalogue import as_before
from normlab.configs import build
from normlab.configs.document import Mark, Path, flow
from normlab.configs.sections import CALLS, OWN, SECTIONS
from normlab.store.names import slug

SEED_AXES = ("seed", "train.seed")
"""The axes of the sweep that are the seed, however it is spelt."""


@dataclass(frozen=True, eq=False)
class RunConfig:
    """What one run does, with nothing left open.

    Attributes:
        sections: section to keys to values; a valid config itself.
        origins: where each value was given, by path; a path that is absent is a default.
        axes: the values of the sweep's axes that make this run what it is.
        names: what the config calls the value of an axis, where it says so.
        words: what stands in the arm's name for an axis, where that is the config's choice.
        own_code: the modules of the person's own that it names, with the hashes of their source.
    """

    sections: dict[str, Any]
    origins: Mapping[Path, Mark] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    own_code: dict[str, str] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """Ten hex digits: the same for the same resolved config, whatever file it came from.

        Where the config names code of the person's own, its source counts too.
        """
        return short_hash(self.sections, self.own_code)

    @property
    def program_hash(self) -> str:
        """As `hash`, but the same for every seed and learning rate: runs with one program."""
        return short_hash(build.of_one_program(self.sections), self.own_code)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.sections["train"]["seed"]

    @property
    def arm(self) -> str:
        """What sets this run's arm apart from the others, without the seed."""
        words = [self.words.get(axis, self._word(axis)) for axis in self.axes]
        return ", ".join(filter(None, words)) or self.sections["norm"]["name"]

    def _word(self, axis: str) -> str:
        if axis not in self.labels:  # a seed
            return ""
        label = self.labels[axis]
        return label if is_call(self.axes[axis]) else f"{axis}={flow(label)}"

    @property
    def labels(self) -> dict[str, Any]:
        """The axes but the seed: as the config calls the value, or else `value_label` of it."""
        return {
            axis: self.names.get(axis, value_label(value))
            for axis, value in self.axes.items()
            if axis not in SEED_AXES
        }

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return f"{slug(self.arm)}-s{self.seed}-{self.hash}"

    def with_seed(self, seed: int) -> "RunConfig":
        """The same run with another seed."""
        train = {**self.sections["train"], "seed": seed}
        axes = {axis: seed if axis in SEED_AXES else value for axis, value in self.axes.items()}
        return replace(self, sections={**self.sections, "train": train}, axes=axes)

    def came_from(self, origins: Mapping[Path, Mark]) -> "RunConfig":
        """The same run with other places where its values were given."""
        return replace(self, origins=origins)


def is_call(value: Any) -> bool:
    """Whether a value names something of the catalogue."""
    return isinstance(value, dict) and "name" in value


def call_label(call: dict[str, Any]) -> str:
    """A named call in short: its name, and the arguments that were given.

    >>> call_label({"name": "group_norm", "groups": 4})
    'group_norm(groups=4)'
    """
    arguments = ", ".join(f"{key}={value}" for key, value in call.items() if key != "name")
    return f"{call['name']}({arguments})" if arguments else call["name"]


def value_label(value: Any) -> Any:
    """A value of an axis for people: numbers, text and the like as they are, the rest in short.

    >>> value_label({"name": "identity"}), value_label([8, 8]), value_label(0.1)
    ('identity', '[8, 8]', 0.1)
    """
    if is_call(value):
        return call_label(value)
    return flow(value) if isinstance(value, list | dict) else value


def as_label(key: Any) -> str:
    """A key of a mapping as the label it is: `8` is as good as `'8'`.

    >>> as_label("batch_norm"), as_label(8)
    ('batch_norm', '8')
    """
    return key if isinstance(key, str) else flow(key)


def on_command_line(value: Any) -> str:
    """A value of an axis as an override gives it."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return value["name"]
    return flow(value)


def resolved(sections: dict[str, Any]) -> dict[str, Any]:
    """Checked sections as a run has them: all of them, without what came later and is not used."""
    whole = {name: _plain(sections.get(name)) for name in SECTIONS}
    used = {n: value for n, value in whole.items() if value is not None or not SECTIONS[n].later}
    return _without_earlier(used, shown=False)


def short_hash(sections: dict[str, Any], own_code: dict[str, str]) -> str:
    """Ten hex digits of the sections as they were before later settings came, and of own code."""
    hashed = _without_earlier(sections, shown=True)
    data = hashed.get("data") or {}
    if data.get("contents") is not None:  # what data are is known, so they may be moved
        hashed["data"] = {key: value for key, value in data.items() if key != "path"}
    if own_code:  # without any, the hash is what it always was
        hashed["own_code"] = own_code
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:10]


def _without_earlier(sections: dict[str, Any], shown: bool) -> dict[str, Any]:
    """The sections without the settings that say what held before they came."""
    used = {}
    for name, section in sections.items():
        if isinstance(section, dict):
            earlier = _as_before(name, section, shown)
            section = {k: v for k, v in section.items() if k not in earlier or v != earlier[k]}
        used[name] = section
    return used


def _as_before(name: str, section: dict[str, Any], shown: bool) -> dict[str, Any]:
    if name not in CALLS:
        return as_before(SECTIONS[name].settings, shown)
    if ":" in str(section["name"]) or section["name"] == OWN:  # these were there before
        return {}
    return as_before(CALLS[name].load(section["name"]), shown)


def _plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them, at every depth."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
