"""Defines length, batches and loss of training: the `train:` section of a config."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from normlab.catalogue import later
from normlab.errors import UserError, require_field
from normlab.store.seeds import is_seed
from normlab.training.averaging import Statistics
from normlab.training.metrics import METRICS, Metric
from normlab.training.privacy import Privacy
from normlab.training.projection import Projection

Shared = Literal["whole", "local"]
"""What shares the statistics of a batch that is split: all of it, or each of its parts."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a run that are neither model, normaliser, data nor optimiser.

    Attributes:
        epochs: number of passes over the training examples. An epoch takes whole batches from a
            fresh permutation and omits the examples that do not fill a batch.
        batch_size: examples in one optimiser step (the SGD batch).
        seed: the seed of the initial weights, the order, the augmentation, dropout and noise. A
            config may split it into streams, as in {init: 2, order: 0, augment: 1}, where a stream
            without a number has 0, and noise has that of dropout; {init: 0..4, order: 0..4} makes
            every combination. In Python `normlab.store.seeds.split_seed(init=2, augment=1)` splits
            it.
        label_smoothing: the share of each target that is spread over all classes.
        clip: the greatest global norm of the gradient, which is scaled down to it; null for none.
        adaptive_clip: the greatest norm of a unit's gradient, relative to the norm of the unit's
            weights; the gradient is scaled down to it, except in the head (adaptive gradient
            clipping, Brock et al. 2021, arXiv:2102.06171, with 0.01); null for none.
        scalar_rate: the learning rate of scalar parameters relative to that of the others (Fixup's
            authors use 0.1); null for the same rate.
        accumulate: number of microbatches that each batch is split into, processed one after the
            other. Each is normalised by its own statistics. If a normaliser uses the batch, the
            result stays the same only if `norm_batch` divides the microbatch, or with
            `statistics: whole`.
        statistics: what shares statistics where a batch is split. `whole`: all of the batch, over
            devices and microbatches. The batch then goes through the network at once, in as many
            segments as there are microbatches, and memory is saved by computing each segment again
            in the backward pass. `local`: each device's part of a
            microbatch by itself, which is the unsynchronised batch normalisation of most training
            on several GPUs. null: each microbatch by itself, over all devices.
        eval_every: number of steps between evaluations on the test split; null for once per epoch.
            There is always an evaluation after the last step.
        eval_batch_size: examples evaluated at once; the result does not depend on it.
        metrics: metrics beyond loss and accuracy, for classes of unequal size: `auc` (the area
            under the ROC curve, the mean over classes) and `balanced_accuracy`.
        ema: the decay, such as 0.999, of an average of the weights over the steps, which evaluation
            uses; null to evaluate with the weights of the last step. The first steps weigh as in
            Adam's averages, so that the initial weights do not count.
        ema_statistics: the normalisers' statistics beside averaged weights: `averaged`, by the same
            rule; `recalibrated`, those that the averaged network has on training images;
            `current`, those of the last step.
        project: what keeps the norm that it had at the start, by a projection after every step
            (NaP, arXiv:2407.01800): `weights`, the kernel of every layer but the head;
            `weights_and_scales`, these and the scale of each normaliser together with its bias;
            `sphere`, every unit vector in the weights of `ngpt`, which needs it; null for nothing.
        local_steps: with `data.shards`, the steps that each client takes between two averages.
        local_normalisers: with `data.shards`, whether each client keeps the parameters and the
            statistics of its normalisers (FedBN, arXiv:2102.07623). It is then tested with them, on
            its own test examples.
        fixed_statistics_after: with `data.shards`, the round from which on normalisers take the
            averaged statistics in training too, and keep them (FixBN, arXiv:2303.06530); null for
            never.
        private: null, or the settings of private training (DP-SGD, arXiv:1607.00133): `clip`, the
            greatest norm of the gradient of one example; `noise_multiplier`, the deviation of the
            noise in the sum of these, over `clip`; and `delta`, the chance with which `epsilon`
            need not hold. Each example is in each step by chance, and `batch_size` is the expected
            number. `epsilon` needs `normlab[private]`.
    """

    epochs: int = 10
    batch_size: int = 128
    seed: int = 0
    label_smoothing: float = 0.0
    clip: float | None = None
    adaptive_clip: float | None = later(None)
    scalar_rate: float | None = later(None)
    accumulate: int = 1
    statistics: Shared | None = later(None)  # noqa: RUF009
    eval_every: int | None = None
    eval_batch_size: int = 500
    metrics: tuple[Metric, ...] | None = later(None)
    ema: float | None = later(None)
    ema_statistics: Statistics = later("averaged")  # noqa: RUF009
    project: Projection | None = later(None)  # noqa: RUF009
    local_steps: int = later(1)
    local_normalisers: bool = later(False)
    fixed_statistics_after: int | None = later(None)
    private: Privacy | None = later(None)  # noqa: RUF009

    def __post_init__(self) -> None:
        whole = "a positive whole number"
        for field in ("epochs", "batch_size", "accumulate", "eval_batch_size", "local_steps"):
            value = getattr(self, field)
            require_field(value >= 1, field, value, whole)
        every = self.eval_every
        require_field(every is None or every >= 1, "eval_every", every, f"{whole} or null")
        require_field(is_seed(self.seed), "seed", self.seed, "between 0 and 2^32 - 1")
        after = self.fixed_statistics_after
        allowed = "a number of rounds, 0 or more, or null"
        require_field(after is None or after >= 0, "fixed_statistics_after", after, allowed)
        smoothing = self.label_smoothing
        require_field(0 <= smoothing < 1, "label_smoothing", smoothing, "at least 0 and below 1")
        for field in ("clip", "adaptive_clip", "scalar_rate"):
            value = getattr(self, field)
            require_field(value is None or value > 0, field, value, "a positive number or null")
        known = set(self.metrics or ()) <= METRICS.keys()
        require_field(known, "metrics", self.metrics, f"of {', '.join(METRICS)}, or null")
        averages = self.ema is None or 0 < self.ema < 1
        require_field(averages, "ema", self.ema, "a number between 0 and 1, or null")
        used = self.ema is not None or self.ema_statistics == "averaged"
        allowed = "averaged, unless there is an ema"
        require_field(used, "ema_statistics", self.ema_statistics, allowed)
        known = self.project is None or self.project in get_args(Projection)
        allowed = f"{', '.join(get_args(Projection))} or null"
        require_field(known, "project", self.project, allowed)
        on_sphere = self.project == "sphere" and self.ema is not None
        allowed = "null with project: sphere, because averages of unit vectors are shorter"
        require_field(not on_sphere, "ema", self.ema, allowed)
        self._check_privacy()
        divides = self.batch_size % self.accumulate == 0
        allowed = f"a divisor of batch_size={self.batch_size}"
        require_field(divides, "accumulate", self.accumulate, allowed)
        known = self.statistics is None or self.statistics in get_args(Shared)
        allowed = f"{' or '.join(get_args(Shared))}, or null"
        require_field(known, "statistics", self.statistics, allowed)

    @property
    def microbatches(self) -> int:
        """The number of parts that go through the network one after the other."""
        return 1 if self.statistics == "whole" else self.accumulate

    def _check_privacy(self) -> None:
        if isinstance(self.private, dict):  # from a config
            object.__setattr__(self, "private", Privacy(**self.private))
        given = self.private
        if given is None:
            return
        for name, least, most in (("clip", 0, math.inf), ("noise_multiplier", 0, math.inf),
                                  ("delta", 0, 1)):  # fmt: skip
            value = getattr(given, name)
            allowed = f"given a {name} above 0" + (" and below 1" if most == 1 else "")
            require_field(least < value < most, "private", value, allowed)

    def room(self, examples: int) -> int:
        """Return how many examples a step has room for: the batch, or more if training is private.

        Raises:
            UserError: the examples do not fill a batch.
        """
        if self.private is None:
            return self.batch_size
        steps = self.epochs * self.steps_per_epoch(examples)
        return self.private.room(examples, self.batch_size, steps, self.accumulate)

    def steps_per_epoch(self, examples: int) -> int:
        """Return the number of whole batches in one epoch of `examples` training examples.

        Raises:
            UserError: the examples do not fill a batch.
        """
        if examples < self.batch_size:
            raise UserError(
                f"batch_size={self.batch_size} is larger than the {examples} training examples: "
                "lower it, or take more examples"
            )
        return examples // self.batch_size
