"""Provenance names the code's commit, and says whether anything differs from it."""

import os
import subprocess
from pathlib import Path

import pytest

import normlab
from normlab.data import Shapes
from normlab.engine import provenance
from normlab.store import git
from normlab.store.git import UNKNOWN, git_state, last_commit


@pytest.fixture
def package(tmp_path):
    """A package in a repository of its own, committed."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("x = 1\n")
    (folder.parent / ".gitignore").write_text("*.ignored\n.venv/\n")
    run(folder.parent, "init", "-q")
    commit(folder.parent)
    return folder


def run(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def commit(repository):
    run(repository, "add", "-A")
    run(repository, "commit", "-q", "-m", "all")


def dirty(folder):
    return git_state(folder).get("dirty")


def test_a_committed_package_is_clean(package):
    state = git_state(package)
    assert set(state) == {"commit"} and len(state["commit"]) == 40


@pytest.mark.parametrize("name", ["code.py", "new.py", "deep/er/new.py", "a name.py", "ü.py"])
def test_what_is_changed_or_new_makes_it_dirty_and_its_content_counts(package, name):
    file = package / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x = 2\n")
    first = dirty(package)
    assert len(first) == 10
    file.write_text("x = 3\n")
    assert dirty(package) not in (None, first)
    file.write_text("x = 2\n")
    assert dirty(package) == first


def test_a_file_that_is_gone_or_staged_makes_it_dirty(package):
    (package / "code.py").unlink()
    assert dirty(package)
    run(package, "checkout", "code.py")
    (package / "new.py").write_text("")
    run(package, "add", "new.py")
    assert dirty(package)


def test_ignored_files_and_the_rest_of_the_repository_do_not_count(package):
    (package / "x.ignored").write_text("1")
    (package.parent / "page.md").write_text("1")
    assert dirty(package) is None
    assert git_state(package, package.parent)["dirty"]


def test_large_new_files_count_by_their_size(package, monkeypatch):
    monkeypatch.setattr(git, "MOST_BYTES", 10)
    (package / "large").write_bytes(b"a" * 100)
    first = dirty(package)
    (package / "large").write_bytes(b"b" * 100)
    assert dirty(package) == first
    (package / "large").write_bytes(b"b" * 101)
    assert dirty(package) != first


def test_a_tree_too_large_to_list_is_not_called_clean(package, monkeypatch):
    told = git._git

    def slow(folder, *arguments):
        return None if "--others" in arguments else told(folder, *arguments)

    monkeypatch.setattr(git, "_git", slow)
    assert dirty(package) == UNKNOWN


def test_a_package_installed_within_somebodys_repository_is_not_theirs(package):
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("x = 1\n")
    assert git_state(installed) is None


def test_outside_of_git_there_is_no_state(tmp_path):
    assert git_state(tmp_path) is None and last_commit(tmp_path / "file") is None


def test_a_hooks_variables_do_not_name_another_repository(package, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    run(other, "init", "-q")
    expected = git_state(package)
    monkeypatch.setitem(os.environ, "GIT_DIR", str(other / ".git"))
    assert git_state(package) == expected


def test_the_commit_of_a_file_is_that_which_holds_it_as_it_is(package):
    first = last_commit(package / "code.py")
    (package / "other.py").write_text("")
    commit(package.parent)
    assert last_commit(package / "code.py") == first != last_commit(package / "other.py")
    (package / "code.py").write_text("x = 2\n")
    assert last_commit(package / "code.py") is None
    assert last_commit(package / "new.py") is None


def test_a_run_records_the_state_of_the_whole_package(monkeypatch):
    seen = []
    monkeypatch.setattr(provenance, "git_state", seen.append)
    provenance.collect(Shapes(train_examples=20, test_examples=20, size=8).load())
    assert seen == [Path(normlab.__file__).parent]
