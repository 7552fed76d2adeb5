"""The sections that a config may have, and the tables that say what each of them is."""

import re
from dataclasses import dataclass

from normlab.adapters.modes import SWITCHES
from normlab.adapters.own_model import FOUND
from normlab.catalogue import DATA, KERNELS, MODELS, NORMS, Shelf
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES, OptaxShelf
from normlab.errors import require_field
from normlab.training.optimizer import Role
from normlab.training.recipe import Recipe

CALLS: dict[str, Shelf | OptaxShelf] = {
    "data": DATA,
    "model": MODELS,
    "norm": NORMS,
    "kernel": KERNELS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""The sections that name something to call; their other keys are its arguments."""

REQUIRED = {"data", "model", "norm", "optimizer"}
"""Those that every experiment has; the others may be left out, or null."""

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
"""What stands for `model` in the tables below where a person's own code is named."""

FILLED_IN = {
    "model": {"norm", "classes", "kernel", "parent", "name"},
    OWN_MODEL: {"parent", "name", "rngs", *SWITCHES},
    "norm": {"axis_name"},
    "optimizer": {"mask", "weight_decay_mask", "trust_ratio_mask", "key", "dtype_momentum"},
}
"""Arguments that a config does not give: they come from other sections or from the loop."""

LENGTHS = ("decay_steps", "transition_steps")
"""Arguments of schedules that are the length of the run where they are left out."""

STAND_INS = {"model": {"norm": None, "classes": 1}}
"""What is put for them where a section is checked by itself."""

OPTIONAL = {OWN_MODEL: FOUND, "optimizer": {"learning_rate"}, "schedule": set(LENGTHS)}
"""Arguments that their function requires but the config may leave out."""


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


SETTINGS: dict[str, type] = {"train": Recipe, "decay": Decay, "target": Target}
"""The sections that are plain settings."""

WORDS = {
    "name": "the experiment's name: its runs lie in a folder called so (default: the file's name)",
    "question": "what the experiment asks, in a sentence",
    "source": "the paper or thread that the question comes from",
    "extends": "a config beside this one whose keys hold where this one has none",
}
"""The keys that are text."""

TOP_LEVEL = (*WORDS, *CALLS, *SETTINGS, "probes", "sweep", "tune", "claims")

RANGE = re.compile(r"([0-9]{1,10})\.\.([0-9]{1,10})")
"""An axis in short: from the first number to the last, both included."""
