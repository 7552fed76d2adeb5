"""Defines the sections of a config, and the call or the settings of each."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from normlab.adapters.modes import SWITCHES
from normlab.adapters.own_model import FOUND
from normlab.catalogue import DATA, KERNELS, MODELS, NORMS, PLACEMENTS, Shelf, as_before
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES, OptaxShelf
from normlab.errors import require_field, require_whole
from normlab.measures.probe_values import END
from normlab.policies.streams import STREAMS, Stream
from normlab.spellings import meant
from normlab.training.mesh import Mesh
from normlab.training.optimizer import Role
from normlab.training.recipe import Recipe

LENGTHS = ("decay_steps", "transition_steps")
"""Arguments of schedules that are the length of the run by default."""

COMMON = {
    "data": {
        "augment": "augmentations of every training batch, in turn",
        "validation": "the number of training examples to hold out, or own for a dataset that has "
        "a validation split; their metrics are val_loss and val_accuracy",
        "shards": "how the examples are dealt to clients that do not share them: by_label or "
        "dirichlet; a step of training is then a round of all clients (default: no clients)",
    },
    "norm": {
        "where": "the normalisation layers of a model of your own that it replaces: a pattern, or "
        "a list of patterns, for their paths or classes (default: all)",
    },
}
"""Keys that a section has beside the arguments of the call that it names."""

OWN = "own"
"""The value of `data.validation` that chooses the dataset's own split, and the value of `norm` that
keeps the layers of a person's own model."""

OWN_MODEL = "own model"
"""The kind of a call that names a person's own model without slots of normlab."""

FORMS = {
    "zip": "axes that go together value by value, or a list of such mappings",
    "list": "a list of points, each a mapping of axes to values; or a mapping of labels to points",
    "exclude": "mappings of axes to values; a run with all values of one of them is left out",
}
"""The keys of the sweep that are not axes."""

RANGE = re.compile(r"([0-9]{1,10})\.\.([0-9]{1,10})")
"""A range of whole numbers as the values of an axis, with both ends included."""


@dataclass(frozen=True)
class Decay:
    """The strength of weight decay, and the parameters that decay.

    Attributes:
        rate: `rate * parameter` is added to the gradient (L2, torch's meaning for SGD).
        roles: the roles of the parameters that decay, by this rate or by an optimiser's own
            (`adamw`'s `weight_decay`): of "weight", "bias" and "norm" (the parameters of
            normalisers and kernel transforms).
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
    """The settings of the probes, which are named in `measure`, a list of calls.

    Attributes:
        at: the steps, from 0, before which the probes look; "end" is after the last step.
        every: number of steps between further looks, which begin before step 0; null for none.
        examples: the number of training examples that they look at: the first, not augmented.
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
class Evaluating:
    """The settings of evaluations after training by policies, which are named in `policy`.

    Every policy is judged on every stream with every batch size, all of one trained network. Claims
    read the results by `evaluated(test_accuracy, tent, sorted, 64)`.

    Attributes:
        stream: one or several of iid (shuffled), sorted (by label), changing (one corruption after
            another, without a new beginning) and as_stored (in the order of the data).
        batch_size: the number of test examples in a batch, or several such numbers.
        corruptions: the names of corruptions of the test images. By default a changing stream has
            the fifteen `remade_...` ones, and other streams have none. On other streams than the
            changing one, the network begins anew for each.
        severity: that of the corruptions, 1..5.
        examples: the number of training images that a policy may prepare with, in batches of
            `train.batch_size`; fewer if there are fewer.
        seed: the seed of the orders and the corruptions, which are the same for all runs.
        look: whether the run's probes also look at the network as each policy leaves it.
    """

    stream: tuple[Stream, ...] = ("iid",)
    batch_size: tuple[int, ...] = (200,)
    corruptions: tuple[str, ...] | None = None
    severity: int = 5
    examples: int = 1000
    seed: int = 0
    look: bool = False

    def __post_init__(self) -> None:
        for name in ("stream", "batch_size"):
            value = getattr(self, name)
            once = bool(value) and len(set(value)) == len(value)
            require_field(once, name, list(value), "a list without repetitions, one at least")
        for size in self.batch_size:
            require_whole("batch_size", size, 1)
        require_field(self.corruptions != (), "corruptions", [], "null, or a list of one at least")
        require_whole("severity", self.severity, 1, 5)
        require_whole("examples", self.examples, 1)
        require_field(0 <= self.seed < 2**31, "seed", self.seed, "between 0 and 2^31 - 1")
        require_field(
            set(self.stream) <= set(STREAMS),
            "stream",
            list(self.stream),
            f"of {', '.join(STREAMS)}",
        )


@dataclass(frozen=True)
class Section:
    """One section of a run's config.

    Attributes:
        about: a description in a few words.
        shelf: the shelf of the functions or classes that it may name, whose arguments are its
            other keys. None for a section of plain settings.
        settings: the class of its settings; None for a section that names a function or a class.
        needed: whether every experiment has it. Other sections may be left out, or null.
        later: whether a later version of normlab added it. A resolved config that does not use it
            leaves it out, so that its hash stays that of the earlier version.
        filled_in: arguments that a config does not give, because they come from other sections or
            from the training loop.
        stand_ins: values of these arguments for checking the section by itself.
        optional: arguments that the function requires but the config may leave out.
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
    "data": Section("the dataset, its augmentation and its validation split", DATA, needed=True),
    "model": Section(
        "the network",
        MODELS,
        needed=True,
        filled_in=frozenset({"norm", "classes", "kernel", "placement", "parent", "name"}),
        stand_ins={"norm": None, "classes": 1},
    ),
    "norm": Section(
        "the normaliser in the network's slots",
        NORMS,
        needed=True,
        filled_in=frozenset({"axis_name"}),
    ),
    "kernel": Section("what makes the kernels of their parameters", KERNELS, later=True),
    "placement": Section(
        "where the normalisers stand in the network (default: the network's own placement)",
        PLACEMENTS,
        later=True,
    ),
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
    "decay": Section("the rate of weight decay, and the roles of its parameters", settings=Decay),
    "train": Section("length, batches and loss of training", settings=Recipe),
    "probes": Section("the probes, which look inside the network", settings=Probing, later=True),
    "evaluate": Section(
        "the policies by which the trained network is evaluated", settings=Evaluating, later=True
    ),
    "mesh": Section("the devices that each batch is spread over", settings=Mesh, later=True),
}
"""The sections of a run, in the order in which a resolved config has them."""

OWN_NETWORK = Section(
    "a network of a person's own code",
    MODELS,
    filled_in=frozenset({"parent", "name", "rngs", *SWITCHES}),
    optional=FOUND,
)
"""The section `model` of a network without slots of normlab."""

CALLS: dict[str, Shelf | OptaxShelf] = {
    name: section.shelf for name, section in SECTIONS.items() if section.shelf is not None
}
"""The sections that name a function or a class."""

SETTINGS = {name: section.settings for name, section in SECTIONS.items() if section.settings}
"""The sections that are plain settings."""

WORDS = {
    "name": "the experiment's name, and that of the folder of its runs (default: the file's name)",
    "question": "the question that the experiment asks, in a sentence",
    "source": "the paper or thread that the question comes from",
    "extends": "a config beside this one, from which this one takes the keys that it lacks",
}
"""The keys that are text."""

OTHERS = {
    "target": "the accuracy to which steps and seconds are counted",
    "sweep": "axes and their values; every combination is a run",
    "tune": "a grid that every arm tries first; each arm is then run at its best point",
    "claims": "sentences that the runs decide, registered before the first step",
    "looks": "the numbers of seeds an arm at which the claims are judged, registered before the "
    "first step (default: once, at all seeds)",
    "baseline": "the arm that reports compare the others with: its name, or its label on an axis "
    "(default: the first arm that did not diverge)",
    "engine": "where the runs are made: the name of an engine, or a mapping with its name and "
    "options (default: local); it is no part of what a run is",
}
"""The keys of the experiment as a whole."""

TARGET = Section(OTHERS["target"], settings=Target)
"""The section `target`, which is the experiment's and not its runs'."""

TOP_LEVEL = (*WORDS, *SECTIONS, *OTHERS)
"""Every key of a config."""


def section(kind: str) -> Section:
    """Return a section; a kind without one, such as an augmentation, gets one without settings."""
    return OWN_NETWORK if kind == OWN_MODEL else SECTIONS.get(kind, Section(""))


def elsewhere(key: str) -> tuple[str, str] | None:
    """Return the setting that a key means which people write in another section, and its section.

    >>> elsewhere("lr"), elsewhere("batchsize"), elsewhere("filters")
    (('learning_rate', 'optimizer'), ('batch_size', 'train'), None)
    """
    places = {**dict.fromkeys(Recipe.__dataclass_fields__, "train"), "learning_rate": "optimizer"}
    found = meant(key, places)
    return None if found is None else (found, places[found])


def without_earlier(sections: dict[str, Any], shown: bool) -> dict[str, Any]:
    """Return the sections without later settings that have the meaning of their absence.

    Args:
        sections: some of a run's.
        shown: whether to leave out those that a resolved config always shows, or the others.
    """
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
    if ":" in str(section["name"]) or section["name"] == OWN:  # such calls have no later settings
        return {}
    return as_before(CALLS[name].load(section["name"]), shown)
