"""The catalogue finds what is there, names what is wrong, and needs no jax to do so."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from normlab import catalogue
from normlab.catalogue import AUGMENTATIONS, DATA, KERNELS, MODELS, NORMS, Shelf
from normlab.errors import UserError

ENTRY = '''
from normlab.core import normaliser

@normaliser(paper="none")
class {name}:
    """A summary.

    More."""
'''


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A shelf over an empty package of the test's own."""
    package = f"shelf_{tmp_path.name}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(catalogue, "_read", catalogue._read.__wrapped__)
    return Shelf("normaliser", package, "normaliser")


def test_the_shelves_hold_what_the_folders_do():
    assert {"identity", "affine", "batch_norm", "layer_norm", "layer_norm_image", "group_norm",
            "instance_norm", "rms_norm"} <= set(NORMS.entries())  # fmt: skip
    assert {"weight_norm", "weight_standardisation", "scaled_weight_standardisation",
            "centred_weight_norm", "spectral_norm"} <= set(KERNELS.entries())  # fmt: skip
    assert {"resnet", "resnet_v2", "convnet", "mlp"} <= set(MODELS.entries())
    assert {"cifar10", "cifar100", "shapes"} <= set(DATA.entries())
    assert {"flip", "crop", "cutout", "brightness", "contrast"} <= set(AUGMENTATIONS.entries())
    for each in (NORMS, KERNELS, MODELS, DATA, AUGMENTATIONS):
        for name, entry in each.entries().items():
            assert entry.summary.endswith("."), f"{name} has no summary in one sentence"
            assert each.load(name).catalogue_kind == each.decorator


def test_listing_imports_neither_jax_nor_numpy():
    code = (
        "import sys; from normlab.catalogue import NORMS, MODELS, DATA; "
        "print(len(NORMS.entries()) + len(MODELS.entries()) + len(DATA.entries())); "
        "sys.exit(bool({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) >= 15


@pytest.mark.parametrize("statement", ["import normlab", "import normlab, normlab.cli"])
def test_importing_normlab_or_its_command_line_imports_nothing_slow(statement):
    slow = {"jax", "flax", "optax", "orbax", "matplotlib", "pandas", "scipy.stats", "PIL"}
    code = f"import sys; {statement}; print(*({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [], done.stderr


def test_a_new_file_is_found_by_itself(shelf):
    (shelf.folder / "mine.py").write_text(ENTRY.format(name="MyNewNorm"))
    assert shelf.entries()["my_new_norm"].summary == "A summary."
    assert shelf.load("my_new_norm").__name__ == "MyNewNorm"


def test_a_name_given_twice_is_an_error_with_both_files(shelf):
    for file in ("one.py", "two.py"):
        (shelf.folder / file).write_text(ENTRY.format(name="Same"))
    with pytest.raises(ImportError, match=r"two\.py.*'same' is already defined in .*one\.py"):
        shelf.entries()


def test_a_file_that_is_not_python_is_an_error(shelf):
    (shelf.folder / "broken.py").write_text("def (:")
    with pytest.raises(SyntaxError) as error:
        shelf.entries()
    assert Path(str(error.value.filename)).name == "broken.py"


def test_a_file_that_fails_to_import_is_named(shelf):
    (shelf.folder / "failing.py").write_text(ENTRY.format(name="Failing") + "\n1 / 0\n")
    with pytest.raises(ImportError, match=r"failing\.py: 'failing' cannot be imported: division"):
        shelf.load("failing")


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UserError, match=r"no normaliser is called 'bach_norm'.*'batch_norm'"):
        NORMS.load("bach_norm")


def test_an_entry_of_ones_own_is_named_by_its_module(tmp_path, monkeypatch):
    (tmp_path / "outside_norms.py").write_text(ENTRY.format(name="Mine") + "\nclass Bare: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert NORMS.load("outside_norms:Mine").__name__ == "Mine"
    for name, reason in {
        "outside_norms:Bare": "put @normaliser above",
        "outside_norms:Missing": "has no attribute",
        "no_such_module:Mine": "No module named",
    }.items():
        with pytest.raises(UserError, match=reason):
            NORMS.load(name)


FAMILIES = {
    "controls": "a network without a normaliser, and one of scale and bias alone (2003.00152)",
    "whitening": "decorrelated (1804.08450) and iterative (1904.03441) batch normalisation",
}
"""The files of `normlab/norms` that hold a family which the literature names, and its members."""


def test_a_normaliser_lies_in_the_file_of_its_name_or_of_its_family():
    families = set()
    for name, entry in NORMS.entries().items():
        file = Path(entry.file)
        if name.startswith(file.stem):
            continue
        first = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]
        assert file.stem in FAMILIES, f"{name} is not looked for in {file.name}"
        assert first.startswith(f"The {file.stem} family: ")
        families.add(file.stem)
    assert families == set(FAMILIES)
