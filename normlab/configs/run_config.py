"""Defines the resolved config of one run, with its names for people and its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from normlab.configs import build
from normlab.configs.document import Mark, Path, flow
from normlab.configs.sections import SECTIONS, without_earlier
from normlab.store.names import slug
from normlab.store.seeds import seed_id, seed_of, setting_of

SEED_AXES = ("seed", "train.seed")
"""The names that the seed may have as an axis of the sweep."""


@dataclass(frozen=True, eq=False)
class RunConfig:
    """The config of one run, in which every default is filled in.

    Attributes:
        sections: section to keys to values; they are a valid config themselves.
        origins: the place of each value by its path; a path that is absent is a default.
        axes: the value of this run on each axis of the sweep.
        names: the label of the value on each axis that has labels in the config.
        words: the word in the arm's name for each axis, if the config chooses it.
        own_code: the person's own modules that the config names, with the hashes of their source.
    """

    sections: dict[str, Any]
    origins: Mapping[Path, Mark] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    own_code: dict[str, str] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """Ten hex digits, which are the same for the same resolved config from any file.

        They depend on the source of the person's own code too, if the config names any.
        """
        return short_hash(self.sections, self.own_code)

    @cached_property
    def program_hash(self) -> str:
        """Ten hex digits that runs of one program share, whatever their seed and learning rate."""
        sections = build.of_one_program(self.sections)
        devices = self.sections.get("mesh")  # on which other devices are other programs
        more = {} if devices is None else {"mesh": repr(devices)}
        return short_hash(sections, {**self.own_code, **more})

    @cached_property
    def arm_hash(self) -> str:
        """Ten hex digits that the runs of an arm share, whatever their seed."""
        return self.with_seed(0).hash

    @property
    def seed(self) -> int:
        """The run's seed, plain or split (`normlab.store.seeds`)."""
        return seed_of(self.sections["train"]["seed"])

    @cached_property
    def arm(self) -> str:
        """The name of the arm, made of the values on all axes but the seed."""
        words = [self.words.get(axis, self._word(axis)) for axis in self.axes]
        return ", ".join(filter(None, words)) or self.sections["norm"]["name"]

    def _word(self, axis: str) -> str:
        if axis not in self.labels:  # a seed
            return ""
        label = self.labels[axis]
        return label if is_call(self.axes[axis]) else f"{axis}={flow(label)}"

    @cached_property
    def labels(self) -> dict[str, Any]:
        """The label of the value on each axis but the seed: the config's, or `value_label`."""
        return {
            axis: self.names.get(axis, value_label(value))
            for axis, value in self.axes.items()
            if axis not in SEED_AXES
        }

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return f"{slug(self.arm)}-s{seed_id(self.seed)}-{self.hash}"

    def with_seed(self, seed: int) -> "RunConfig":
        """Return the same run with another seed."""
        setting = setting_of(seed)
        train = {**self.sections["train"], "seed": setting}
        axes = {axis: setting if axis in SEED_AXES else own for axis, own in self.axes.items()}
        found = replace(self, sections={**self.sections, "train": train}, axes=axes)
        return found.as_an_arm_with(self)

    def as_an_arm_with(self, other: "RunConfig") -> "RunConfig":
        """Take over what is the same for all seeds of an arm, so that it is computed once."""
        for name in ("arm", "labels", "program_hash", "arm_hash"):
            if name in other.__dict__:
                self.__dict__[name] = other.__dict__[name]
        return self

    def on_devices_of(self, run: "RunConfig") -> "RunConfig":
        """Return the same run on the devices of another."""
        rest = {name: value for name, value in self.sections.items() if name != "mesh"}
        devices = run.sections.get("mesh")
        more = {} if devices is None else {"mesh": devices}
        return replace(self, sections={**rest, **more})

    def came_from(self, origins: Mapping[Path, Mark]) -> "RunConfig":
        """Return the same run with other places of its values."""
        return replace(self, origins=origins)


def is_call(value: Any) -> bool:
    """Return whether a value is a named call."""
    return isinstance(value, dict) and "name" in value


def call_label(call: dict[str, Any]) -> str:
    """Return a named call in short: its name, and the arguments that were given.

    >>> call_label({"name": "group_norm", "groups": 4})
    'group_norm(groups=4)'
    """
    arguments = ", ".join(f"{key}={value}" for key, value in call.items() if key != "name")
    return f"{call['name']}({arguments})" if arguments else call["name"]


def value_label(value: Any) -> Any:
    """Return a value of an axis for people: lists and calls in short, and others unchanged.

    >>> value_label({"name": "identity"}), value_label([8, 8]), value_label(0.1)
    ('identity', '[8, 8]', 0.1)
    """
    if is_call(value):
        return call_label(value)
    return flow(value) if isinstance(value, list | dict) else value


def as_label(key: Any) -> str:
    """Return a key of a mapping as a label, which is a text: `8` means the same as `'8'`.

    >>> as_label("batch_norm"), as_label(8)
    ('batch_norm', '8')
    """
    return key if isinstance(key, str) else flow(key)


def on_command_line(value: Any) -> str:
    """Return a value of an axis as an override on the command line gives it."""
    if isinstance(value, dict) and list(value) == ["name"]:
        return value["name"]
    return flow(value)


def resolved(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of a run from checked ones, without unused settings of later versions."""
    whole = {name: _plain(sections.get(name)) for name in SECTIONS}
    used = {n: value for n, value in whole.items() if value is not None or not SECTIONS[n].later}
    return without_earlier(used, shown=False)


def short_hash(sections: dict[str, Any], own_code: dict[str, str]) -> str:
    """Return ten hex digits of the sections and of own code.

    Settings of later versions do not count where they have the meaning of their absence.
    """
    hashed = without_earlier(sections, shown=True)
    data = hashed.get("data") or {}
    if data.get("contents") is not None:  # contents identify the data, so files may be moved
        hashed["data"] = {key: value for key, value in data.items() if key != "path"}
    devices = hashed.pop("mesh", None)  # where all of a batch shares statistics, they only round
    if devices is not None and (hashed.get("train") or {}).get("statistics") == "local":
        hashed["mesh"] = {"data": devices["data"]}
    if own_code:  # without any, the hash must be that of earlier versions
        hashed["own_code"] = own_code
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:10]


def _plain(value: Any) -> Any:
    """Return a value with lists in place of tuples at every depth, as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
