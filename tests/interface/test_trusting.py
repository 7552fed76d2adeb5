"""Code that a config names runs only where a person trusts its folder."""

import io
import json
import os
import pty
import select
import subprocess
import sys

import pytest

from normlab import catalogue, cli
from normlab.catalogue import NORMS, UntrustedError
from normlab.configs.document import ConfigError
from normlab.configs.experiment import load_experiment
from normlab.engine.outcomes import TrainedNetwork
from normlab.errors import UserError
from normlab.interface.trusting import is_all_ones_own
from normlab.store import trusted
from tests.shared.command_line import TINY
from tests.shared.waiting import GENEROUS

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from dataclasses import dataclass
from normlab.core import normaliser

@normaliser(paper="none", uses_batch=False)
@dataclass(frozen=True)
class Evil:
    strength: float = 1.0
    def init(self, features):
        return {}, {}
    def apply(self, params, state, x, *, train, mask=None):
        return x, state
"""


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A folder with a config that names code, as one unpacks from an archive."""
    monkeypatch.setenv("NORMLAB_TRUST", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(trusted, "_for_this_process", set())
    monkeypatch.setattr(catalogue, "_allowed", set())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.delitem(sys.modules, "evil_norms", raising=False)
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "evil_norms.py").write_text(EVIL)
    write(folder, "evil_norms:Evil")
    return folder


@pytest.fixture
def normlab(monkeypatch, capfd):
    """The command, in this process: its exit status, and what it prints."""

    def command(*words, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["normlab", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, "".join(capfd.readouterr())

    return command


def write(folder, norm, more=""):
    text = TINY.replace("[identity, batch_norm]", f"[identity, {norm}]")
    (folder / "c.yaml").write_text(text + more)


COMMANDS = {
    "check": ("check", "c.yaml"),
    "folder": ("check", "."),
    "dry run": ("run", "c.yaml", "--dry-run"),
    "run": ("run", "c.yaml"),
    "explain": ("explain", "c.yaml"),
    "explain a name": ("explain", "evil_norms:Evil"),
    "describe": ("describe", "evil_norms:Evil"),
    "override": ("run", "quickstart", "--dry-run", "norm=evil_norms:Evil", "sweep=null"),
    "init": ("init", "new.yaml", "--model", "evil_norms:Evil", "--data", "shapes"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_runs_code_of_a_folder_that_nobody_trusts(stranger, normlab, words):
    status, said = normlab(*words, cwd=stranger)
    assert not (stranger / "ran").exists()
    assert "--trust" in said and "Traceback" not in said
    assert status == (0 if words[0] in ("check", "init") else 2)


@pytest.mark.parametrize("name", ["antigravity:x", "this:x", "normlab.store.writing:as_line"])
@pytest.mark.parametrize("place", ["norm", "model", "optimizer", "schedule", "data", "kernel"])
def test_modules_of_python_and_of_packages_are_no_exception(stranger, name, place):
    call = {"model": f"{{name: '{name}', file: x}}"}.get(place, f"'{name}'")
    (stranger / "c.yaml").write_text(f"{TINY.replace('sweep', 'claims: []  # sweep')}")
    with pytest.raises(ConfigError) as error:
        load_experiment(stranger / "c.yaml", (f"{place}={call}",))
    said = (f"{name} is code, which was not run", "has none", f"{name} has no key 'file'")
    assert any(words in str(error.value) for words in said)
    assert "this" not in sys.modules and "antigravity" not in sys.modules


def test_a_parent_of_another_folder_must_be_trusted_too(stranger, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "c.yaml").write_text("extends: ../stranger/c.yaml\n")
    trusted.trust(own)
    with pytest.raises(ConfigError) as error:
        load_experiment(own / "c.yaml")
    assert error.value.untrusted == (stranger,)


def test_what_can_be_read_without_running_it_is_told(stranger, normlab):
    write(
        stranger, "{name: evil_norms:Evil, strenght: 2.0}, evil_norms:Evli, gone:X", "trian: {}\n"
    )
    status, printed = normlab("check", "c.yaml", cwd=stranger)
    assert status == 2
    for said in ("evil_norms:Evil has no key 'strenght'; did you mean 'strength'?",
                 "evil_norms has none; did you mean 'Evil'?", "there is no module 'gone'",
                 "an experiment has no key 'trian'"):  # fmt: skip
        assert said in printed, said
    assert not (stranger / "ran").exists()


def test_trust_is_remembered_for_the_folder_and_what_lies_in_it_alone(stranger, normlab, tmp_path):
    status, said = normlab("check", "c.yaml", "--trust", cwd=stranger)
    assert status == 0 and "fine, 2 runs" in said
    assert (stranger / "ran").exists()
    assert "fine, 2 runs" in normlab("check", "c.yaml", cwd=stranger)[1]
    file = tmp_path / "home" / "normlab" / "trusted.json"
    assert json.loads(file.read_text()) == {"folders": [str(stranger)]}
    assert file.stat().st_mode & 0o777 == 0o600
    assert trusted.is_trusted(stranger / "below") and not trusted.is_trusted(tmp_path)


def test_a_list_that_others_can_write_to_is_not_believed(stranger, tmp_path, monkeypatch):
    trusted.trust(stranger)
    monkeypatch.setattr(trusted, "_for_this_process", set())
    assert trusted.is_trusted(stranger)
    (tmp_path / "home" / "normlab" / "trusted.json").chmod(0o666)
    assert not trusted.is_trusted(stranger)


def test_a_variable_stands_for_trust_in_jobs_and_notebooks(stranger, monkeypatch):
    monkeypatch.setenv("NORMLAB_TRUST", "1")
    assert len(load_experiment(stranger / "c.yaml").runs) == 2
    monkeypatch.delenv("NORMLAB_TRUST")
    assert not trusted.is_trusted(stranger)  # nothing is remembered


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_it_is_asked_once(stranger, answer):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "normlab.cli", "check", "c.yaml"]
    process = subprocess.Popen(command, cwd=stranger, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said:
        assert select.select([ours], [], [], GENEROUS)[0], said
        said += os.read(ours, 1000)
    os.write(ours, answer.encode() + b"\n")
    while select.select([ours], [], [], GENEROUS)[0]:
        try:
            more = os.read(ours, 1000)
        except OSError:
            break
        said += more
    process.wait(GENEROUS)
    os.close(ours)
    assert str(stranger).encode() in said.replace(b"\r\n", b"")
    assert trusted.is_trusted(stranger) == (stranger / "ran").exists() == (answer == "y")
    assert (b"fine, 2 runs" in said) == (answer == "y")


def test_a_run_of_a_stranger_does_not_run_its_code_for_an_answer(stranger):
    with pytest.raises(UserError, match="evil_norms:Evil is code"):
        TrainedNetwork(stranger / "runs", {"norm": {"name": "evil_norms:Evil"}})


def test_a_name_is_imported_by_nobody_who_has_not_asked(stranger):
    with pytest.raises(UntrustedError):
        NORMS.load("evil_norms:Evil")


def test_a_package_that_lies_in_a_strangers_folder_hides_no_missing_one(stranger):
    (stranger / "numba.py").write_text('from pathlib import Path\nPath("ran").touch()\n')
    (stranger / "zstandard.py").write_text('from pathlib import Path\nPath("ran").touch()\n')
    write(stranger, "batch_norm", "")
    command = [str(sys.prefix) + "/bin/normlab", "run", "c.yaml", "--dry-run"]
    subprocess.run(command, cwd=stranger, capture_output=True, timeout=GENEROUS, check=True)
    assert not (stranger / "ran").exists()


def test_what_one_begins_oneself_needs_no_question(stranger, normlab, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "c.yaml").write_text(TINY)
    normlab("new", "norm", "begun_norm", cwd=mine)
    write(mine, "begun_norm:BegunNorm")
    assert "fine, 2 runs" in normlab("check", "c.yaml", cwd=mine)[1]
    normlab("new", "norm", "another", cwd=stranger)
    assert not trusted.is_trusted(stranger)


def test_a_folder_with_a_config_that_names_code_is_not_all_ones_own(tmp_path):
    assert is_all_ones_own(tmp_path)
    (tmp_path / "a.yaml").write_text("question: why\nnorm: {name: batch_norm}\n")
    assert is_all_ones_own(tmp_path)
    for text in ("norm: antigravity:x", "sweep:\n  norm: [a, b.c:D]", "model: {name: a:B}"):
        (tmp_path / "b.yaml").write_text(text)
        assert not is_all_ones_own(tmp_path), text
