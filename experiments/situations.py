"""The situations on docs/which.md, and the results that speak about each."""

from collections.abc import Callable
from dataclasses import dataclass

from normlab.store.record import Record


@dataclass(frozen=True)
class Situation:
    """One heading of the page.

    Attributes:
        heading: the situation in words.
        question: the name of the question whose results speak about it.
        measure: the measure that ranks the arms.
        higher: whether more is better, if the measure does not say.
        choices: the axes whose values are what one chooses; the others make the settings.
    """

    heading: str
    question: str
    measure: str
    higher: bool | None = None
    choices: tuple[str, ...] = ("norm", "kernel")


ACCURACY, CORRUPTED = "final(test_accuracy)", "probe(under_corruption.{}, end)"

SITUATIONS = (
    Situation("Photographs", "catalogue", ACCURACY),
    Situation("Short trainings, by the accuracy over all of their steps", "faster",
              "area(test_accuracy)"),
    Situation("A learning rate that cannot be tuned, by the largest at which anything is learnt",
              "learning_rates", "largest_stable(learning_rate)"),
    Situation("Depth, with shortcuts and without", "depth", ACCURACY),
    Situation("Little data, and what regularises", "regularisation", ACCURACY,
              choices=("norm", "model")),
    Situation("X-rays in small batches, to be ranked", "medical", "final(test_auc)"),
    Situation("X-rays in small batches, both classes to be named", "medical",
              "final(test_balanced_accuracy)"),
    Situation("Speech of a voice that was never heard", "speech", ACCURACY),
    Situation("Other light at test time, with statistics as stored", "light",
              CORRUPTED.format("corrupted"), True),
    Situation("Other light at test time, with statistics of 200 images from there", "light",
              CORRUPTED.format("adapted_200"), True),
)  # fmt: skip

PRICED = "catalogue"
"""The question whose prices are shown."""

WORDS: dict[str, Callable[[Record], str]] = {
    "data.train_examples": lambda r: f"{r.data['train_examples']:,} training images",
    "data.level": lambda r: (
        "recordings of one level" if r.config["data"]["level"] == "standardised"
        else "raw recordings, quieter than those trained on"),
    "data.test_speed": lambda r: f"played {r.config['data']['test_speed']:g} times as fast",
    "data.test_pitch": lambda r: f"{r.config['data']['test_pitch']:+g} semitones",
    "batch_size": lambda r: f"batches of {r.config['train']['batch_size']}",
    "epochs": lambda r: f"{r.config['train']['epochs']} epochs",
}  # fmt: skip
"""Words for settings that are numbers. (Some of the training images are held out.)"""

ELSEWHERE: dict[str, Callable[[Record], bool] | None] = {
    "GPUs and TPUs": lambda r: any(
        not device.startswith("cpu") for proof in r.provenance for device in proof["devices"]),
    "several devices": lambda r: any(len(proof["devices"]) > 1 for proof in r.provenance),
    "images larger than 32x32, ImageNet": lambda r: r.config["data"]["name"] == "imagenet",
    "transformers": lambda r: r.config["model"]["name"] == "vit",
    "lower precision": lambda r: r.config["model"].get("dtype", "float32") != "float32",
    "batches of more than 1,000": lambda r: r.config["train"]["batch_size"] > 1000,
    "language models, detection, segmentation, generation, reinforcement learning": None,
    "fine-tuning of pretrained networks": None,
}  # fmt: skip
"""Other situations, and which runs would speak about them; None if normlab cannot ask yet."""
