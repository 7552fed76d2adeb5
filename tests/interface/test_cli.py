"""The command line as a person meets it, in processes of its own."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from normlab.catalogue import AUGMENTATIONS, DATA, KERNELS, MODELS, NORMS
from normlab.cli import assemble
from normlab.configs.optax_names import OPTIMIZERS, SCHEDULES
from tests.shared.command_line import normlab

ROOT = Path(__file__).parents[2]
TINY = """
question: does it run?
data: {name: shapes, train_examples: 60, test_examples: 20, size: 8}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 1, batch_size: 20}
sweep: {norm: [identity, batch_norm]}
"""


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["list", "norms"], ["list", "kernels"],
     ["list", "models"], ["list", "data"], ["list", "augmentations"],
     ["list", "optimizers"], ["list", "schedules"]],
    ids=" ".join,
)  # fmt: skip
def test_help_and_list_answer_without_importing_jax(arguments, tmp_path):
    code = (
        "import sys, atexit; from normlab import cli; "
        f"sys.argv = ['normlab', *{arguments!r}]; "
        "atexit.register(lambda: print('JAX' if 'jax' in sys.modules else 'no jax')); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("no jax\n") and len(done.stdout) > 100


def test_a_new_file_is_a_command_and_a_folder_a_group(tmp_path, monkeypatch):
    (tmp_path / "planted" / "deep").mkdir(parents=True)
    for place, text in {
        "planted/__init__.py": "",
        "planted/greet.py": "def command() -> None:\n    'Say hello.'\n    print('hello')\n",
        "planted/deep/__init__.py": "'A group.'\n",
        "planted/deep/list.py": "def command() -> None:\n    'Say more.'\n    print('more')\n",
    }.items():
        (tmp_path / place).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    app = assemble(typer.Typer(), importlib.import_module("planted"))
    for words, said in {
        "greet": "hello", "deep list": "more", "--help": "A group.", "deep --help": "Say more."
    }.items():  # fmt: skip
        assert said in CliRunner().invoke(app, words.split()).output, words


def test_run_ends_with_a_table_and_where_the_results_lie(config, tmp_path):
    done = normlab("run", config, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("does it run?", "identity", "batch_norm", "test accuracy", "Not decided",
                  "its 95% interval", "runs: runs/tiny"):  # fmt: skip
        assert words in done.stdout
    assert "s/step" not in done.stdout and "not as planned" not in done.stdout
    assert "\x1b" not in done.stdout, "no control codes where there is no terminal"
    again = normlab("run", config, cwd=tmp_path)
    assert again.stdout.count("was done") == 2
    wide = normlab("run", config, "--wide", cwd=tmp_path)
    for words in ("mean final(test_accuracy)", "s/step", "not as planned", "IQM: the interqu"):
        assert words in wide.stdout


def test_a_dry_run_shows_everything_and_writes_nothing(config, tmp_path):
    done = normlab("run", config, "norm=layer_norm", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("epochs: 1", "tiny.yaml:6:17", "default", "command line 'norm=layer_norm'",
                  "layer_norm: 1,642", "Dense_0/kernel: float32[192, 8]", "1 run of 3 steps",
                  "runs/tiny/layer_norm-s0-"):  # fmt: skip
        assert words in done.stdout, words
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_check_tells_every_mistake_of_every_file(config, tmp_path):
    (tmp_path / "bad.yaml").write_text(TINY.replace("epochs", "epoch").replace("size: 8", "siz: 8"))
    (tmp_path / "worse.yaml").write_text("data: [")
    done = normlab("check", ".", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "tiny.yaml: fine, 2 runs" in done.stdout
    for words in ("bad.yaml:3:61", "bad.yaml:6:9", "worse.yaml:1:8", "2 of 3 files must be mended"):
        assert words in done.stderr, words


@pytest.mark.parametrize(
    "names",
    [
        ["quickstart.yaml", "learning_rates.yaml", "two_names.yaml"],
        pytest.param(["."], marks=pytest.mark.thorough),
    ],
    ids="-".join,
)
def test_the_configs_of_the_repository_are_fine(names, tmp_path):
    done = normlab("check", *(ROOT / "configs" / name for name in names), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["run", "nope.yaml"], ["run", "tiny.yaml", "trian.epochs=1"], ["describe", "groupnorm"],
     ["check", "nowhere"], ["data", "fetch", "cifar11"], ["data", "fetch", "size=28"],
     ["data", "fetch", "medmnist", "set=chestmnist"]],
    ids=" ".join,
)  # fmt: skip
def test_a_persons_mistake_has_no_traceback(arguments, config, tmp_path):
    done = normlab(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr) > 20


def test_data_list_says_what_is_here_and_how_to_get_the_rest(tmp_path):
    done = normlab("data", "list", cwd=tmp_path, NORMLAB_DATA=str(tmp_path))
    assert str(tmp_path) in done.stdout and "normlab data fetch cifar10" in done.stdout
    assert "built in" in done.stdout


def test_missing_data_are_told_before_anything_is_trained(config, tmp_path):
    config.write_text(
        TINY.replace("shapes, train_examples: 60, test_examples: 20, size: 8", "cifar10")
    )
    done = normlab("run", config, cwd=tmp_path, NORMLAB_DATA=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "normlab data fetch cifar10" in done.stdout


SHELVES = (NORMS, KERNELS, MODELS, DATA, AUGMENTATIONS, OPTIMIZERS, SCHEDULES)


def test_every_entry_can_be_described():
    from normlab.interface.describe import describe_entry

    for shelf in SHELVES:
        for name in shelf.entries():
            text = describe_entry(name)
            assert text.startswith(f"{name} ({shelf.kind})") and "In YAML" in text
    for section in ("train", "decay", "target"):
        assert "In YAML" in describe_entry(section)
    text = describe_entry("group_norm")
    for words in ("groups: 8", "arXiv:1803.08494", "uses batch: no", "groups: int", "eps: 1.0e-05"):
        assert words in text, words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("claims", ("claims (section)", "says: ", "floor (optional): ")),
        ("tune", ("tune (section)", "grid: axes and their values", "measure: ")),
        ("sweep", ("sweep (section)", "zip: ", "exclude: ")),
        ("data", ("data (section)", "augment: ", "cifar10: ")),
        ("optimizer", ("optimizer (section)", "adamw")),
        ("batch_size", ("train.batch_size (setting)", "a whole number; default 128")),
        ("claims.expect", ("claims.expect (setting)", "needed")),
        ("learning_rate", ("learning_rate (key of a config)", "schedule")),
        ("expect", ("claims.expect (setting)", "matches within 0.01", "ratio <= 0.5")),
        ("differs by more than 0.01", ("differs (a form of claims.expect)", "below -0.01")),
        ("ratio", ("ratio (a form of claims.expect)", "left over right")),
        ("data.validation", ("data.validation (setting)", "hold out")),
        ("sweep.norm", ("norm (section)", "group_norm")),
        ("compare.left", ("claims.left (setting)",)),
        ("baseline", ("baseline (key of a config)", "did not diverge")),
        ("final", ("final (measure)", "final(metric)", "test_accuracy")),
        ("final(test_accuracy)", ("final (measure)",)),
        ("final_test_accuracy", ("final (measure)",)),
        ("gap of train_accuracy and test_accuracy", ("gap (measure)", "gap(metric, metric)")),
        ("val_auc", ("val_auc (metric)", "`data.validation`", "train.metrics: [auc]")),
    ],
)
def test_parts_of_a_config_and_measures_are_described(name, words):
    from normlab.interface.describe import describe_entry

    text = describe_entry(name)
    assert all(word in text for word in words), text
    assert "`normlab." not in text, "modules of normlab are no user's concern"


def test_a_description_says_where_a_function_is_imported_and_how_it_is_called():
    from normlab.interface.describe import describe_entry

    text = describe_entry("group_norm")
    assert "from normlab import group_norm\n" in text and "mask: Array | None = None" in text
    for name in ("batch_norm", "activations", "noise_scale", "weight_standardisation"):
        _, _, called = describe_entry(name).partition("In Python:\n")
        called = called.partition("\n\n")[0]
        assert called and max(map(len, called.splitlines())) <= 100
        for word in ("typing.", "collections.", "jax.", "contract."):
            assert word not in called, (name, word)


def test_check_says_how_overrides_are_checked(tmp_path):
    done = normlab("check", "seed=3", cwd=tmp_path)
    assert done.returncode == 2 and "normlab run FILE seed=3 --dry-run" in done.stderr


def test_schema_is_json(tmp_path):
    done = normlab("schema", cwd=tmp_path)
    assert "group_norm" in json.dumps(json.loads(done.stdout)["properties"]["norm"])
