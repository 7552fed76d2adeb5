"""Whatever people call things, the names of their folders are safe, and differ as the things do."""

import os
import subprocess
import sys
import unicodedata

import pytest

from normlab.configs.run_config import RunConfig
from normlab.store import names
from normlab.store.names import as_text, folder_name, hash_in, slug
from tests.shared.simulated import write, write_run

CHOSEN = [
    "batch_norm", "Batch_Norm", "a b", "a/b", "a\\b", "a:b", "a|b", "../a", "..", ".", "", " ",
    "-rf", "--help", ".hidden", "~", "con", "CON", "nul.txt", "com1", "aux.", "x.", "x ", "x",
    "x" * 500, "x" * 501, "実験", "実験" * 200, "実験" * 201, "безнорм", "नमस्ते", "é", "😀",
    "a\nb", "a\x00b", "a\u202eb", "*", "?", "a?b", "'", '"', "$HOME", "%PATH%",
    "\udce9", "caf\udce9",
]  # fmt: skip
WINDOWS = set('<>:"/\\|?*') | {chr(i) for i in range(32)}


def is_safe(name):
    return (
        0 < len(os.fsencode(name)) <= 200
        and name[0] not in ".-~ +="
        and name[-1] not in ". "
        and not WINDOWS & set(name)
        and name.partition(".")[0].lower() not in {"con", "nul", "aux", "prn", "com1"}
        and name == unicodedata.normalize("NFC", name)
    )


@pytest.mark.parametrize("text", CHOSEN, ids=ascii)
def test_every_name_gives_a_folder_that_every_system_takes(text, tmp_path):
    for found in (folder_name(text), slug(text) + "-s0-0123456789"):
        assert is_safe(found), found
        (tmp_path / found).mkdir()
        assert (tmp_path / found).parent == tmp_path


def test_names_that_differ_have_folders_that_differ():
    found = [folder_name(text) for text in CHOSEN]
    assert len(set(found)) == len(CHOSEN)
    assert folder_name("e\u0301") == folder_name("é") == "é", "both forms of a letter are one"
    for plain in ("cifar10", "tiny+epochs=5", "a b.c", "実験", "नमस्ते"):
        assert folder_name(plain) == plain


def test_where_the_file_system_takes_ascii_alone_names_have_an_ascii_form(monkeypatch):
    monkeypatch.setattr(names.os, "fsencode", lambda text: text.encode("ascii"))
    found = [folder_name(text) for text in ("é", "è", "実験", "実", "été 1")]
    assert all(name.isascii() for name in found) and len(set(found)) == 5
    assert found[4].startswith("ete 1-") and slug("実験") == "arm" and slug("été") == "ete"


def test_a_runs_name_has_its_hash_whatever_its_arm_is_called():
    sections = {"norm": {"name": "identity"}, "train": {"seed": 3}}
    for text in CHOSEN:
        run = RunConfig(sections, axes={"norm": 1}, words={"norm": text})
        assert hash_in(run.id) == run.hash and is_safe(run.id)
    assert hash_in("notes") is None and hash_in("a-s0") is None
    assert as_text("caf\udce9") == "caf�"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locale")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_locale_and_no_terminal_stands_in_the_way(tmp_path, encoding):
    folder = tmp_path / "runs" / "実験 é"
    write(folder, [write_run(folder, "безнорм", 0, 0.5)], question="hilft es, 中?")
    done = subprocess.run(
        [sys.executable, "-m", "normlab.cli", "runs", "show", "runs/実験 é"],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    said = done.stdout.decode(encoding)
    assert {"ascii": r"\u0431\u0435", "latin-1": r"\u5b9f\u9a13 é", "utf-8": "実験 é"}[
        encoding
    ] in said
