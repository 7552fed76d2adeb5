"""One run's config, resolved: every default filled in, named for people, identified by its hash."""

from dataclasses import dataclass, field, replace
from typing import Any

from normlab.configs import build
from normlab.configs.document import Path, flow
from normlab.configs.identity import short_hash
from normlab.store.names import slug

SECTIONS = ("data", "model", "norm", "kernel", "optimizer", "schedule", "decay", "train", "probes")
"""The sections of a resolved config, in the order in which they are shown."""


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
    origins: dict[Path, str] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    own_code: dict[str, str] = field(default_factory=dict)

    @property
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
            if not _is_seed(axis)
        }

    @property
    def id(self) -> str:
        """The name of the run's folder."""
        return f"{slug(self.arm)}-s{self.seed}-{self.hash}"

    def with_seed(self, seed: int) -> "RunConfig":
        """The same run with another seed."""
        train = {**self.sections["train"], "seed": seed}
        axes = {axis: seed if _is_seed(axis) else value for axis, value in self.axes.items()}
        return replace(self, sections={**self.sections, "train": train}, axes=axes)

    def came_from(self, origins: dict[Path, str]) -> "RunConfig":
        """The same run with other places where its values were given."""
        return replace(self, origins=origins)


def _is_seed(axis: str) -> bool:
    return axis in ("seed", "train.seed")


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
