"""Processes that make runs keep their memory and programs, and leave a person's choice alone."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from normlab.data.dataset import Dataset, Split
from normlab.engine import process
from normlab.models.plain import MLP
from normlab.norms import BatchNorm
from normlab.store.loading import load
from normlab.training.compiled import Compiled
from normlab.training.program import Program
from normlab.training.recipe import Recipe
from normlab.training.state import DeviceData

GLIBC = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names

TOUCH = """
import resource
from normlab.engine.process import keep_memory
print(repr(keep_memory()))
import numpy as np
def usage():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_minflt, found.ru_maxrss
for round in range(200):
    if round == 20:
        before = usage()
    np.ones((8 << 20) + 40_000 * (round % 7), np.uint8)
after = usage()
print(*(new - old for new, old in zip(after, before)))
"""


def child(code, **environment):
    clean = {
        n: v for n, v in os.environ.items() if not n.startswith(("MALLOC", "GLIBC", "NORMLAB"))
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not GLIBC, reason="it is glibc that is told")
def test_large_arrays_get_the_memory_of_those_before_them_and_no_more_than_that():
    said, usage = child(TOUCH)
    assert said == "'M_ARENA_MAX=1 M_MMAP_MAX=0 M_TRIM_THRESHOLD=-1'"
    faults, growth = map(int, usage.split())
    assert faults < 180 * 100, "an array of 8 MB has 2,048 pages"
    assert growth < 40_000, "kilobytes"


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_somebody_has_set_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    assert process.keep_memory() == ""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and JAX as if just begun."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NORMLAB_CACHE", raising=False)
    monkeypatch.delenv("NORMLAB_TUNING", raising=False)
    monkeypatch.setattr(process, "_done", {})
    monkeypatch.setattr(process, "keep_memory", lambda: "")
    settings = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in settings}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path / "normlab" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def a_step():
    """A small program compiled as in a new process, and what one step of it gives."""
    jax.clear_caches()
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (32, 4, 4, 1), dtype=np.uint8)
    split = Split(images, noise.integers(0, 2, 32, dtype=np.int32))
    model = MLP(norm=BatchNorm(), classes=2, widths=(8,))
    program = Program(model, optax.sgd(0.1), Recipe(batch_size=16))
    compiled = Compiled(program, DeviceData.put(Dataset("noise", split, split, ("a", "b"))))
    return compiled, compiled.step(compiled.init(0), compiled.order(0, 0), 0)


def test_a_program_is_compiled_once_then_read_to_the_same_bits_unless_its_file_is_spoilt(cache):
    process.prepare()
    assert process.set_by_normlab()["compilation cache"] == "on"
    first, made = a_step()
    assert first.from_cache == 0 and list(cache.rglob("jit_step-*"))
    second, again = a_step()
    assert second.from_cache == 3  # step, order, evaluation
    jax.tree.map(np.testing.assert_array_equal, made, again)

    for file in cache.rglob("jit_step-*"):
        file.write_bytes(file.read_bytes()[:100])  # as if killed while it was written
    third, anew = a_step()  # without a warning, which would be an error here
    assert third.from_cache == 2
    jax.tree.map(np.testing.assert_array_equal, made, anew)


def test_programs_lie_in_the_cache_folder_that_a_person_names(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("NORMLAB_CACHE", str(tmp_path / "mine"))
    process.prepare()
    found = Path(jax.config.jax_compilation_cache_dir)
    assert found == process.programs_folder() and found.parent == tmp_path / "mine" / "compiled"


@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_changed_program_is_compiled_anew_and_its_entry_replaced(cache, place):
    """XLA itself ends the process on some of them."""
    process.prepare()
    a_step()
    (file,) = (f for f in cache.rglob("jit_step-*") if f.name.endswith("-cache"))
    whole = file.read_bytes()
    at = len(whole) // 2 if place == "middle" else len(whole) - 1
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    assert a_step()[0].from_cache == 2
    content, digest = file.read_bytes()[:-32], file.read_bytes()[-32:]
    assert hashlib.sha256(content).digest() == digest
    assert a_step()[0].from_cache == 3


def test_the_folder_of_programs_is_for_this_user_alone(cache, monkeypatch):
    process.prepare()
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in (cache, *cache.iterdir()))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    jax.config.update("jax_compilation_cache_dir", None)
    assert process.keep_programs() == ""
    assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_that_somebody_has_chosen_or_refused_is_left_alone(cache, tmp_path, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    process.prepare()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert "compilation cache" not in process.set_by_normlab() and not cache.exists()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(process, "_done", {})
    jax.config.update("jax_enable_compilation_cache", False)
    process.prepare()
    jax.config.update("jax_enable_compilation_cache", True)
    assert not cache.exists()


def test_without_a_folder_to_write_to_nothing_is_kept(cache, tmp_path):
    (tmp_path / "normlab").write_text("in the way")
    process.prepare()
    assert jax.config.jax_compilation_cache_dir is None
    assert "compilation cache" not in process.set_by_normlab()


def test_nothing_is_set_where_tuning_is_off(cache, monkeypatch):
    monkeypatch.setenv("NORMLAB_TUNING", "off")
    process.prepare()
    assert process.set_by_normlab() == {} and not cache.exists()


def test_what_nobody_has_used_for_longest_goes_first(tmp_path):
    for age in range(10):
        file = tmp_path / "kind" / f"{age}-cache"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(100))
        os.utime(file, (1e9 - age, 1e9 - age))
    process.prune(tmp_path, 1000)
    assert len(list(tmp_path.rglob("*-cache"))) == 10
    process.prune(tmp_path, 999)
    assert sorted(path.name for path in tmp_path.rglob("*-cache")) == [
        f"{n}-cache" for n in range(4)
    ]


@pytest.mark.thorough
def test_a_run_and_its_workers_are_prepared_and_say_so(tiny, tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    for name in [
        n for n in environment if n.startswith(("MALLOC_", "JAX_COMPILATION", "NORMLAB_T"))
    ]:
        del environment[name]
    command = [sys.executable, "-m", "normlab.cli", "run", str(tiny()), "epochs=1"]
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        words = [*command, "--jobs", jobs, "--out", str(out)]
        subprocess.run(words, env=environment, check=True, capture_output=True)
        (run,) = load(out / "tiny+epochs=1")
        (proof,) = run.provenance
        assert proof["set_by_normlab"]["compilation cache"] == "on"
        assert not GLIBC or re.match("M_ARENA_MAX=1 ", proof["set_by_normlab"]["malloc"])
        assert run.status["programs_from_cache"] == (3 if jobs == "2" else 0)
