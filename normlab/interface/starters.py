"""The files that `normlab init` and `normlab new` write, for a person to change."""

import keyword
from pathlib import Path

from normlab.catalogue import snake_case
from normlab.errors import UserError

NORM = '''"""A normaliser of my own: `norm: {{name: "{module}:{cls}"}}` in a config names it."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from normlab.core import Array, Facts, Params, State, normaliser


@normaliser(paper="mine", uses_batch=False)
@dataclass(frozen=True)
class {cls}:
    """Divides each channel vector by its root mean square, and multiplies it by a learnt scale.

    Attributes:
        eps: added to the mean square.
    """

    facts: ClassVar[Facts]  # the decorator sets it

    eps: float = 1e-5

    def init(self, features: int) -> tuple[Params, State]:
        """Make the parameters and the state; a normaliser with running statistics has a state."""
        return {{"scale": jnp.ones(features)}}, {{}}

    def apply(
        self, params: Params, state: State, x: Array, *, train: bool, mask: Array | None = None
    ) -> tuple[Array, State]:
        """Normalise `x`, `(N, ..., C)`, and return the state after it."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean_square = jnp.mean(wide**2, axis=-1, keepdims=True)
        scale = params["scale"].astype(wide.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return (wide / jnp.sqrt(mean_square + self.eps) * scale).astype(x.dtype), state
'''

MODEL = '''"""A network of my own: `model: "{module}:{cls}"` in a config names it."""

import flax.linen as nn
import jax


class {cls}(nn.Module):
    """A small convolutional network. Its number of classes is filled in from the data."""

    num_classes: int
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Compute logits `(N, num_classes)` from images `(N, H, W, C)`."""
        for factor in (1, 2):
            x = nn.Conv(self.width * factor, (3, 3), strides=(2, 2), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.relu(x)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))
'''

DATA = '''"""Data of my own: `data: "{module}:{cls}"` in a config names them."""

from dataclasses import dataclass

import numpy as np

from normlab.data import Dataset, Outline
from normlab.data.dataset import dataset


@dataset(licence="mine", citation="none", how_to_get="nothing to get: the file draws them")
@dataclass(frozen=True)
class {cls}:
    """Dark and light images. Load your own arrays in their place.

    Attributes:
        seed: the seed of the pixels.
    """

    seed: int = 0

    def load(self, root=None):
        """Load the data."""
        labels = np.arange(400) % 2
        noise = np.random.default_rng(self.seed).integers(0, 128, (400, 8, 8, 3))
        images = (noise + 127 * labels[:, None, None, None]).astype(np.uint8)
        return Dataset.from_arrays(images, labels, classes=("dark", "light"), name="{name}")

    def outline(self):
        """Tell the sizes without loading; a fifth of the examples becomes the test split."""
        return Outline((8, 8, 3), classes=2, train_examples=320, test_examples=80)
'''

CONFIG = """\
# normlab run {file}
question: Which normaliser is best for this network and these data?

data: {data}
model: {model}
optimizer: {{name: sgd, momentum: 0.9, nesterov: true}}
schedule: {{name: cosine_decay_schedule, init_value: {rate}}} # its length is filled in
decay: {{rate: 5e-4}} # of kernels alone
train: {{epochs: {epochs}, batch_size: {batch_size}}}

# Every combination is a run. `normlab list norms` prints what else there is.
sweep:
  norm: {norms}
  seed: 0..{last_seed}

# A claim is decided by an interval; it is registered before the first step.
# claims:
#   - says: {first} beats {second} by a percentage point at least
#     source: mine
#     measure: final(test_accuracy)
#     compare: {{left: {first}, right: {second}}}
#     expect: difference >= 0.01
"""


def own_code(template: str, name: str) -> tuple[str, str]:
    """Write a file of a person's own code.

    Args:
        template: `NORM`, `MODEL` or `DATA`.
        name: the name of the class, or of the file: `MyNorm` and `my_norm` give the same.

    Returns:
        The name of the file, and its text.

    Raises:
        UserError: the name cannot be one of Python.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UserError(f"{name!r} must be a name of Python, such as my_norm or MyNorm")
    module = snake_case(name)
    return f"{module}.py", template.format(module=module, cls=class_of(name), name=module)


def class_of(name: str) -> str:
    """Return the name of the class that `own_code` writes for a name.

    >>> class_of("my_norm"), class_of("MyNorm")
    ('MyNorm', 'MyNorm')
    """
    return name if name != name.lower() else "".join(word.title() for word in name.split("_"))


def config(
    file: str,
    *,
    data: str,
    model: str,
    norms: list[str],
    epochs: int = 10,
    batch_size: int = 128,
    rate: float = 0.1,
    seeds: int = 3,
) -> str:
    """Return the text of a commented config; `data` and `model` are YAML."""
    return CONFIG.format(
        file=file,
        data=data,
        model=model,
        norms=f"[{', '.join(norms)}]",
        epochs=epochs,
        batch_size=batch_size,
        rate=rate,
        last_seed=seeds - 1,
        first=norms[0],
        second=norms[-1],
    )


def write_new(file: Path, text: str) -> None:
    """Write a file that does not exist.

    Raises:
        UserError: it exists; nothing is lost.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UserError(f"{file} exists; give another name, or move it away") from error
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror or error}") from error
