"""Holds what users of flax, keras, torch and others ask most about a normaliser, with answers.

`normlab describe` ends with those about the entry. The threads are public; the words are our own.
"""

import textwrap
from dataclasses import dataclass

WIDTH = 76
"""The most places of an answer's line, which stands behind four more."""

MOST = 5
"""So many are shown about one entry."""


@dataclass(frozen=True)
class Question:
    """A question that users ask, and what normlab has for it.

    Attributes:
        about: the entries that it is about, the nearest first.
        asked: the question, in one sentence.
        answer: what to do.
        threads: where it was asked, as `owner/name#number`.
    """

    about: tuple[str, ...]
    asked: str
    answer: str
    threads: tuple[str, ...]

    def links(self) -> list[str]:
        """Return the addresses of the threads.

        >>> QUESTIONS[0].links()[0]
        'https://github.com/google/flax/issues/2279'
        """
        return [f"https://github.com/{'/issues/'.join(one.split('#'))}" for one in self.threads]


QUESTIONS = (
    Question(
        ("batch_norm",),
        "How is it used, and where do its statistics go?",
        "`y, state = norm.apply(params, state, x, train=True)`; evaluation takes the state with "
        "`train=False`. The layers of `normlab.adapters` keep it in `batch_stats` as Flax's do.",
        ("google/flax#2279",),
    ),
    Question(
        ("batch_norm",),
        "Is the batch that shares statistics that of one device or of all?",
        "That of one call: under `jit` it is the whole batch, however it is spread over devices. "
        "`norm_batch` fixes how many examples share statistics, whatever the devices; within "
        "`shard_map`, `axis_name` joins those of the shards, which may hold unequal counts.",
        ("google/flax#332", "google/flax#2417", "keras-team/keras#18667"),
    ),
    Question(
        ("batch_norm",),
        "Does accumulating gradients give the statistics of the large batch?",
        "No, each microbatch has its own. A `norm_batch` that divides the microbatch makes "
        "`train.accumulate` change nothing.",
        ("pytorch/pytorch#46516",),
    ),
    Question(
        ("batch_norm", "frozen_batch_norm"),
        "How do statistics stay frozen while the rest is trained?",
        "`normlab.freeze(model)` puts `frozen_batch_norm` in its place, which uses the stored "
        "statistics in training too; no mode of the model changes that.",
        ("pytorch/pytorch#66073",),
    ),
    Question(
        ("batch_norm", "debiased_batch_norm", "averaged_batch_norm"),
        "Why does a network explode when it is evaluated before it has trained much?",
        "Its running statistics are not yet those of the data, or are debiased wrongly. Here they "
        "begin at 0 and 1; `debiased_batch_norm` gives the beginning no weight, and "
        "`normlab.recalibrate` takes exact ones from batches.",
        ("patrick-kidger/equinox#955", "patrick-kidger/equinox#1010"),
    ),
    Question(
        ("batch_norm",),
        "Does it work under `nnx.vmap`, `eval_shape` and `vmap(jacrev)`?",
        "Yes: a layer's state is arrays of a fixed shape, and evaluation changes none. "
        "`normlab.adapters.nnx.Norm` is tested under these.",
        ("google/flax#4760", "google/flax#4734"),
    ),
    Question(
        ("batch_norm",),
        "Which statistics belong to averaged weights (EMA, SWA)?",
        "`train: {ema: 0.999, ema_statistics: recalibrated}` takes those of the averaged network; "
        "`averaged` and the trained network's own are the others.",
        ("huggingface/pytorch-image-models#102", "lucidrains/ema-pytorch#29"),
    ),
    Question(
        ("batch_renorm",),
        "How do I get it for reinforcement learning, in a critic?",
        "`swap(critic, nnx.BatchNorm, BatchRenorm())` of `normlab.adapters.nnx`; the dialect "
        "`keras` has that library's defaults. Its limits widen over `r_rise` and `d_rise` steps, "
        "as in the paper.",
        ("google/flax#3822", "keras-team/keras#19857"),
    ),
    Question(
        ("dynamic_tanh", "dynamic_erf"),
        "Why is a network with it worse than with batch normalisation?",
        "The paper replaces layer normalisation in transformers; in convolutional networks users "
        "report losses. Tune the learning rate of both arms alike (`tune:`) and begin `alpha` "
        "lower in wide networks.",
        ("jiachenzhu/DyT#7", "jiachenzhu/DyT#9", "google/flax#5456"),
    ),
    Question(
        ("instance_norm", "group_norm", "layer_norm", "batch_norm"),
        "How do I leave padding out of the statistics?",
        "Give `mask=`, booleans that are True where an element counts. What is masked changes no "
        "output, no statistic and no gradient. A mask of floats that is added (0 and -inf) is "
        "refused, because it would be read the wrong way round.",
        ("pytorch/pytorch#81985", "pytorch/pytorch#92554"),
    ),
    Question(
        ("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm"),
        "Why do torch's weights give other outputs here?",
        "Epsilon, padding and axes differ. `normlab.adapters.carry` moves the weights and its "
        "report names each convention that differs; `dialect: torch` has torch's defaults.",
        ("google/flax#2993", "google/flax#2195"),
    ),
    Question(
        ("weight_norm",),
        "Does it keep the function of the network at the start?",
        "Yes: it starts at the norm of the initialised kernel, as torch does. `start: 1` is "
        "Flax's way, which does not.",
        ("google/flax#4138",),
    ),
    Question(
        ("layer_norm", "batch_norm", "rms_norm"),
        "Does it give NaN or lose digits in bfloat16?",
        "No: statistics are in float32 or wider whatever comes in, and the output has the input's "
        "dtype.",
        ("google-deepmind/dm-haiku#396",),
    ),
    Question(
        ("rms_norm", "layer_norm", "group_norm"),
        "Should weight decay touch the scale?",
        "By default it does not (`decay.roles`). Where it does, `zero_centred: true` makes it "
        "pull the scale to one and not to zero.",
        ("google-deepmind/optax#1635",),
    ),
)
"""The nearest to an entry come first, for as many as `MOST` are shown."""


def asked_about(name: str) -> list[Question]:
    """Return the questions about an entry: first those that name it first.

    >>> [len(asked_about(name)) for name in ("batch_norm", "identity")]
    [5, 0]
    """
    found = [one for one in QUESTIONS if name in one.about]
    return sorted(found, key=lambda one: one.about.index(name))[:MOST]


def told(name: str) -> str | None:
    """Write the questions about an entry with their answers and threads, or return None."""
    lines = []
    for one in asked_about(name):
        answer = textwrap.wrap(one.answer, WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [one.asked, *(f"  {line}" for line in (*answer, *one.links()))]
    return "What users ask most:\n" + "\n".join(f"  {line}" for line in lines) if lines else None
