"""Says which sections a config may have, and what each of them names or holds."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from normlab.adapters.modes import SWITCHES
from normlab.adapters.own_model import FOUND
from normlab.catalogue import DATA, KERNELS, MODELS, NORMS, Shelf
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES, OptaxShelf
from normlab.errors import require_field
from normlab.measures.probe_values import END
from normlab.training.optimizer import Role
from normlab.training.recipe import Recipe

LENGTHS = ("decay_steps", "transition_steps")
"""Arguments of schedules that are the length of the run where they are left out."""

COMMON_TO_DATA = {
    "augment": "augmentations of every training batch, in turn",
    "validation": "training examples to hold out, or own (of a dataset that has a validation split "
    "itself); their metrics are val_loss and val_accuracy",
}
"""Keys of `data` that are not arguments of the dataset: every dataset has them."""

COMMON_TO_NORM = {
    "where": "which normalisation layers of a model of your own it replaces: a pattern, or a list "
    "of patterns, for their paths or classes (default: all)",
}
"""Keys of `norm` that are not arguments of the normaliser."""

OWN = "own"
"""The value of `data.validation` where it is no number, and the name of the `norm` that a person's
own model has."""

OWN_MODEL = "own model"
"""The kind of a call that names a model of a person's own code without normlab's slots."""

FORMS = {
    "zip": "axes that go together value by value, or a list of such mappings",
    "list": "points, each a mapping of axes to values; or labels of points to them",
    "exclude": "every run that has all values of one of these mappings is left out",
}
"""The keys of the sweep that are not axes."""

RANGE = re.compile(r"([0-9]{1,10})\.\.([0-9]{1,10})")
"""An axis in short: from the first number to the last, both included."""


@dataclass(frozen=True)
class Decay:
    """Which parameters weight decay touches, and how much of it is added to the gradient.

    Attributes:
        rate: `rate * parameter` is added to the gradient (L2, torch's meaning for SGD).
        roles: the parameters that any weight decay touches, this one and an optimiser's own
            (`adamw`'s `weight_decay`): of "weight", "bias" and "norm" (a normaliser's own, and
            what a kernel transform learns).
    """

    rate: float = 0.0
    roles: tuple[Role, ...] = ("weight",)

    def __post_init__(self) -> None:
        require_field(self.rate >= 0, "rate", self.rate, "at least 0")


@dataclass(frozen=True)
class Target:
    """The accuracy to which steps and seconds are counted in the table.

    Attributes:
        test_accuracy: between 0 and 1.
    """

    test_accuracy: float

    def __post_init__(self) -> None:
        inside = 0 < self.test_accuracy <= 1
        require_field(inside, "test_accuracy", self.test_accuracy, "above 0 and at most 1")


@dataclass(frozen=True)
class Probing:
    """When and at what the probes look; which they are stands in `measure`, a list of calls.

    Attributes:
        at: steps before which they look, from 0, and "end" for after the last one.
        every: they look before every so many steps too, from the first one on.
        examples: how many of the training examples they look at: the first, without augmentation.
    """

    at: tuple[int | Literal["end"], ...] = (0, "end")
    every: int | None = None
    examples: int = 256

    def __post_init__(self) -> None:
        fine = all(step == END or step >= 0 for step in self.at)
        require_field(fine, "at", list(self.at), "a list of steps from 0, and of end")
        require_field(self.every is None or self.every >= 1, "every", self.every, "at least 1")
        require_field(self.examples >= 1, "examples", self.examples, "at least 1")
        some = bool(self.at) or self.every is not None
        require_field(some, "at", list(self.at), "a list with a step, unless there is an 'every'")


@dataclass(frozen=True)
class Section:
    """One section of a run's config.

    Attributes:
        about: what it is, in a few words.
        shelf: where the thing lies that it names; its other keys are that thing's arguments. None
            for a section of plain settings.
        settings: the class of its settings; None for a section that names something.
        needed: whether every experiment has it. One that is not may be left out, or null.
        later: whether it came after others, so that a resolved config without it does not have it
            and keeps its hash.
        filled_in: arguments that a config does not give, because they come from other sections or
            from the training loop.
        stand_ins: values for these where the section is checked by itself.
        optional: arguments that their function requires but the config may leave out.
    """

    about: str
    shelf: Shelf | OptaxShelf | None = None
    settings: type | None = None
    needed: bool = False
    later: bool = False
    filled_in: frozenset[str] = frozenset()
    stand_ins: dict[str, Any] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()


SECTIONS = {
    "data": Section("the dataset, its augmentation and what is held out", DATA, needed=True),
    "model": Section(
        "the network",
        MODELS,
        needed=True,
        filled_in=frozenset({"norm", "classes", "kernel", "parent", "name"}),
        stand_ins={"norm": None, "classes": 1},
    ),
    "norm": Section(
        "the normaliser in the network's slots",
        NORMS,
        needed=True,
        filled_in=frozenset({"axis_name"}),
    ),
    "kernel": Section("what makes the kernels of their parameters", KERNELS, later=True),
    "optimizer": Section(
        "optax's optimiser",
        OPTIMIZERS,
        needed=True,
        filled_in=frozenset(
            {
                "mask",
                "weight_decay_mask",
                "trust_ratio_mask",
                "key",
                "dtype_momentum",
                "clip_value_fn",
                "muon_weight_dimension_numbers",
            }
        ),
        optional=frozenset({"learning_rate"}),
    ),
    "schedule": Section("optax's learning rate by step", SCHEDULES, optional=frozenset(LENGTHS)),
    "decay": Section("weight decay: how much, and of which parameters", settings=Decay),
    "train": Section("length, batches and loss of training", settings=Recipe),
    "probes": Section("what looks inside the network", settings=Probing, later=True),
}
"""The sections of a run, in the order in which a resolved config has them."""

OWN_NETWORK = Section(
    "a network of a person's own code",
    MODELS,
    filled_in=frozenset({"parent", "name", "rngs", *SWITCHES}),
    optional=FOUND,
)
"""The section `model` where the network has no slots of normlab's."""

CALLS: dict[str, Shelf | OptaxShelf] = {
    name: section.shelf for name, section in SECTIONS.items() if section.shelf is not None
}
"""The sections that name something to call."""

SETTINGS = {name: section.settings for name, section in SECTIONS.items() if section.settings}
"""The sections that are plain settings."""

WORDS = {
    "name": "the experiment's name: its runs lie in a folder called so (default: the file's name)",
    "question": "what the experiment asks, in a sentence",
    "source": "the paper or thread that the question comes from",
    "extends": "a config beside this one whose keys hold where this one has none",
}
"""The keys that are text."""

OTHERS = {
    "target": "the accuracy to which steps and seconds are counted",
    "sweep": "axes and their values; every combination is a run",
    "tune": "every arm tries the same grid first, and is then run at its best point",
    "claims": "sentences that the runs decide, registered before the first step",
    "baseline": "the arm that reports compare the others with: its name, or its label on an axis "
    "(default: the first arm that did not diverge)",
}
"""The keys of the experiment as a whole."""

TARGET = Section(OTHERS["target"], settings=Target)
"""The section `target`, which is the experiment's and not its runs'."""

TOP_LEVEL = (*WORDS, *SECTIONS, *OTHERS)
"""Every key of a config."""


def section(kind: str) -> Section:
    """Find a section; what has none of its own, such as an augmentation, has nothing special."""
    return OWN_NETWORK if kind == OWN_MODEL else SECTIONS.get(kind, Section(""))
