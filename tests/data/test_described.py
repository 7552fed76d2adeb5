"""The dataset of a resolved config is made without JAX, as a report makes it."""

import subprocess
import sys

from normlab.configs.sections import COMMON
from normlab.data.described import BESIDE, dataset_of

SECTION = {"name": "shapes", "size": 8, "augment": [{"name": "flip"}], "validation": 10}


def test_the_keys_beside_the_arguments_are_those_of_the_section():
    assert set(BESIDE) == set(COMMON["data"])
    assert dataset_of(SECTION).size == 8


def test_a_dataset_is_loaded_without_importing_jax():
    code = (
        "import sys; from normlab.data.described import dataset_of; "
        f"dataset_of({SECTION!r}).load(); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
