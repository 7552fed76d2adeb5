"""A good config to spoil, and the words with which the check answers."""

import contextlib

import pytest
import yaml

from normlab.catalogue import NORMS
from normlab.configs.document import ConfigError
from normlab.configs.experiment import load_experiment
from tests.shared.small_runs import swept

EVERY_NORMALISER = ", ".join(NORMS.entries())

GOOD = {
    "data": "{name: shapes, train_examples: 100, test_examples: 50, size: 8}",
    "model": "{name: mlp, widths: [8]}",
    "norm": "batch_norm",
    "optimizer": "{name: sgd, learning_rate: 0.1}",
    "train": "{epochs: 1, batch_size: 20}",
}


def text(**changes):
    """A good config with some sections changed; a section of None is left out."""
    sections = {**GOOD, **changes}
    with contextlib.suppress(yaml.YAMLError):
        bases = swept(yaml.safe_load(sections.get("sweep") or ""))
        sections |= {
            key: base for key, base in bases.items() if key in GOOD.keys() - changes.keys()
        }
    return "".join(f"{key}: {value}\n" for key, value in sections.items() if value is not None)


def problems_of(file, *overrides):
    """All the check says, line for line; `{file}` stands for the path of the config."""
    with pytest.raises(ConfigError) as error:
        load_experiment(file, overrides)
    return str(error.value).replace(str(file), "{file}")


def assert_told(file, expected):
    """The check says this one line; after `...` at its end the line may go on."""
    (line,) = problems_of(file).splitlines()
    if expected.endswith("..."):
        assert line.startswith(expected.removesuffix("...")), line
    else:
        assert line == expected, line
