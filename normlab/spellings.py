"""Finds normlab's name for a name that people bring from another library or a paper."""

import re
from collections.abc import Iterable

MEANT = {
    "none": "identity", "nonorm": "identity", "nothing": "identity", "off": "identity",
    "bn": "batch_norm", "syncbn": "batch_norm", "syncbatchnorm": "batch_norm",
    "ln": "layer_norm", "gn": "group_norm", "in": "instance_norm", "rms": "rms_norm",
    "brn": "batch_renorm", "batchrenormalization": "batch_renorm", "frn": "filter_response_norm",
    "grn": "global_response_norm", "lrn": "local_response_norm", "pn": "positional_norm",
    "sn": "switchable_norm", "dbn": "decorrelated_batch_norm", "iternorm": "iterative_norm",
    "dyt": "dynamic_tanh", "derf": "dynamic_erf", "groupnormalization": "group_norm",
    "batchnormalization": "batch_norm", "batchnormalisation": "batch_norm",
    "layernormalization": "layer_norm", "layernormalisation": "layer_norm",
    "wn": "weight_norm", "ws": "weight_standardisation", "spectralnorm": "spectral_norm",
    "lr": "learning_rate", "learningrate": "learning_rate", "stepsize": "learning_rate",
    "bs": "batch_size", "batch": "batch_size", "minibatch": "batch_size",
    "minibatchsize": "batch_size", "wd": "weight_decay", "numepochs": "epochs",
    "nepochs": "epochs", "maxepochs": "epochs", "randomseed": "seed", "seeds": "seed",
    "smoothing": "label_smoothing", "gradclip": "clip", "clipnorm": "clip", "epsilon": "eps",
    "numgroups": "groups", "ngroups": "groups", "affine": "use_scale", "nlayers": "depth",
    "opt": "optimizer", "optim": "optimizer", "optimiser": "optimizer", "dataset": "data",
    "net": "model", "network": "model", "architecture": "model", "arch": "model",
    "normalization": "norm", "normalisation": "norm", "normaliser": "norm", "normalizer": "norm",
    "normlayer": "norm", "scheduler": "schedule", "lrscheduler": "schedule",
    "lrschedule": "schedule", "training": "train", "trainer": "train", "grid": "sweep",
    "tuning": "tune", "title": "name", "experiment": "name", "description": "question",
    "acc": "test_accuracy", "testacc": "test_accuracy", "valacc": "val_accuracy",
    "validationaccuracy": "val_accuracy",
    "hflip": "flip", "horizontalflip": "flip", "randomhorizontalflip": "flip",
    "randomcrop": "crop", "sgdmomentum": "sgd", "adamweightdecay": "adamw",
}  # fmt: skip
"""The meaning of each name, by its letters and digits alone."""

NUMBERED = {"group_norm": "groups", "batch_group_norm": "groups"}
"""The argument that a number at the end of a name gives."""


def meant(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a usual name means, as a config would have it, or None.

    >>> meant("none", ["identity"]), meant("nn.BatchNorm2d", ["batch_norm"])
    ('identity', 'batch_norm')
    >>> meant("gn8", ["group_norm"]), meant("lr", ["learning_rate"]), meant("lr", ["epochs"])
    ('{name: group_norm, groups: 8}', 'learning_rate', None)
    """
    plain = {_letters(name): name for name in candidates}
    last = re.split(r"[./:]", word.strip())[-1]
    short = re.sub(r"[123][dD]$", "", last)
    for spelling in (last, short):
        letters = _letters(spelling)
        name = plain.get(letters) or plain.get(_letters(MEANT.get(letters, "")))
        if name is not None:
            return name
    numbered = re.fullmatch(r"(.*?[A-Za-z])[\s_(=-]*([0-9]+)\)?", last)
    if numbered is not None:
        letters = _letters(numbered[1])
        name = plain.get(letters) or plain.get(_letters(MEANT.get(letters, "")))
        if name in NUMBERED:
            return f"{{name: {name}, {NUMBERED[name]}: {int(numbered[2])}}}"
    return None


def _letters(word: str) -> str:
    return re.sub(r"[^0-9a-z]", "", word.lower())
