"""Small files of numbers that other libraries gave, for machines on which these are not installed.

Each `goldens/NAME.npz` holds arrays, and the versions of what made them. `python -m
tests.peers.norms` (and its like) makes them anew, where the libraries are.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("goldens")
VERSIONS = "versions"


def save(name: str, arrays: dict[str, np.ndarray], libraries: tuple[str, ...]) -> None:
    """Write `goldens/NAME.npz` and note the installed versions of `libraries` in it."""
    versions = json.dumps({library: version(library) for library in libraries})
    np.savez_compressed(FOLDER / f"{name}.npz", **{VERSIONS: np.array(versions)}, **arrays)


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of `goldens/NAME.npz`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key != VERSIONS}


def versions(name: str) -> dict[str, str]:
    """Read which versions of libraries `goldens/NAME.npz` was made with."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return json.loads(str(file[VERSIONS]))


def images_and_labels(
    shape: tuple[int, ...], classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A batch that a peer and we are trained on, the same wherever it is drawn."""
    draw = np.random.default_rng(seed)
    images = draw.standard_normal(shape).astype(np.float32)
    return images, draw.integers(0, classes, shape[0])
