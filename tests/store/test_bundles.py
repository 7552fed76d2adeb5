"""A bundle holds what a judge needs, and a stranger's file does no harm."""

import json
import stat
import zipfile

import pytest
from typer.testing import CliRunner

from normlab.cli import app
from normlab.errors import UserError
from normlab.evidence.audit import audit
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports.agreement import agreement
from normlab.reports.english import about_verdict
from normlab.store import bundles
from normlab.store.bundles import METADATA, write_bundle
from normlab.store.journal import note
from normlab.store.loading import load_runs
from tests.shared.simulated import simulate

HIGH, LOW = [0.70, 0.71, 0.69, 0.72, 0.70], [0.50, 0.52, 0.49, 0.51, 0.53]
CLAIM = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")


@pytest.fixture
def runs(tmp_path):
    plan = {"seeds": [0, 1, 2, 3, 4], "looks": [5]}
    found = simulate(tmp_path / "runs" / "e", {"a": HIGH, "b": LOW}, [CLAIM], plan=plan)
    claims = {CLAIM.hash: CLAIM.says}
    note(found.path, "registered", **plan, arms=["a", "b"], claims=claims)
    for run in found:
        (run.path / "checkpoints").mkdir()
        (run.path / "checkpoints" / "weights").write_bytes(b"large")
    return found


@pytest.fixture
def bundle(runs, tmp_path):
    return write_bundle(runs, tmp_path / "e.zip")


def zipped(file, **members):
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def refused(file):
    with pytest.raises(UserError) as error:
        load_runs(file)
    return str(error.value)


def test_a_bundle_is_judged_and_audited_as_its_folder_is(runs, bundle):
    read = load_runs(bundle)
    (here,), (there,) = judge(runs), judge(read)
    assert there.outcome == "supported" and about_verdict(there) == about_verdict(here)
    assert audit(read) == audit(runs)
    assert [run.provenance for run in read] == [run.provenance for run in runs]


def test_a_bundle_has_no_checkpoints_and_the_same_bytes_each_time(runs, bundle, tmp_path):
    names = zipfile.ZipFile(bundle).namelist()
    assert not [name for name in names if "checkpoints" in name]
    assert {"experiment.json", "claims.json", "journal.jsonl", "a-s0/metrics.jsonl"} <= {*names}
    assert write_bundle(runs, tmp_path / "f.zip").read_bytes() == bundle.read_bytes()


def test_a_changed_result_in_a_bundle_is_found(runs, tmp_path):
    note(runs.path, "finished", run="a-s0", digest="0" * 32)
    file = write_bundle(load_runs(runs.path), tmp_path / "e.zip")
    assert audit(load_runs(file)) == audit(runs)


def test_a_bundle_agrees_with_its_folder_and_with_another_bundle(runs, bundle, tmp_path):
    assert agreement(load_runs(bundle), runs).disagreements == []
    other = simulate(tmp_path / "other" / "e", {"a": HIGH, "b": [0.5, *LOW[1:-1], 0.4]}, [CLAIM])
    second = write_bundle(other, tmp_path / "other.zip")
    found = agreement(load_runs(bundle), load_runs(second))
    (told,) = (text for text in found.disagreements if "test_accuracy" in text)
    assert told.endswith("0.25 in the reference, 0.315 rerun")
    assert "reference final(test_accuracy)" in str(found)


def test_what_was_published_agrees_with_its_folder_in_either_order(runs, tmp_path):
    from normlab.store.published import write_published

    shown = {"measure": "final(test_accuracy)", "baseline": None, "figure": None}
    write_published(runs, tmp_path / "p", {"shown": shown})
    published = load_runs(tmp_path / "p")
    for one, other in ((runs, published), (published, runs)):
        assert agreement(one, other).disagreements == []


def test_a_published_folder_fits_into_a_bundle_too(tmp_path):
    from normlab.store.published import shipped_results

    published = load_runs(next(one for one in shipped_results() if one.name == "layer_speeds"))
    read = load_runs(write_bundle(published, tmp_path / "p.zip"))
    assert [v.outcome for v in judge(read)] == [v.outcome for v in judge(published)]


def test_archives_can_read_what_it_is(runs, bundle, tmp_path):
    rocrate = pytest.importorskip("rocrate.rocrate")
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "open")
    crate = rocrate.ROCrate(tmp_path / "open")
    assert crate.name == "normlab: e" and crate.description == "does it?"
    parts = {part["@id"] for part in crate.root_dataset["hasPart"]}
    assert parts == {*zipfile.ZipFile(bundle).namelist()} - {METADATA}


def test_without_the_package_there_are_no_metadata(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rocrate.rocrate", None)
    assert METADATA not in zipfile.ZipFile(write_bundle(runs, tmp_path / "x.zip")).namelist()


HOSTILE = [
    "../../evil", "/etc/evil", "a-s0/../../evil", ".hidden", "a-s0/.x/status.json", "evil.py",
    "a-s0/evil.py", "a-s0\\status.json", "C:/evil", "a-s0/checkpoints/x",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_no_bundle_has_is_not_unpacked(bundle, tmp_path, name):
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr(name, "evil")
    folder = load_runs(bundle).path
    found = [file for file in folder.parent.rglob("*") if file.is_file()]
    assert found and all(b"evil" not in file.read_bytes() for file in found)
    assert not (tmp_path / "evil").exists()


def test_a_link_in_a_bundle_is_not_followed(bundle):
    with zipfile.ZipFile(bundle, "a") as archive:
        link = zipfile.ZipInfo("remarks.yaml")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    assert not (load_runs(bundle).path / "remarks.yaml").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(bundle, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_BYTES", 1000)
    assert "it would unpack to" in refused(bundle)


def test_more_than_the_size_that_is_claimed_is_refused(bundle):
    content = bytearray(bundle.read_bytes())
    place = content.rindex(b"PK\x01\x02")  # the last entry of the directory
    content[place + 24 : place + 28] = (1).to_bytes(4, "little")
    bundle.write_bytes(content)
    assert "cannot be read as a bundle" in refused(bundle)


def test_whatever_is_cut_or_changed_is_told_without_a_traceback(bundle, tmp_path):
    whole = bundle.read_bytes()
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        file = tmp_path / f"cut{cut}.zip"
        file.write_bytes(whole[:cut])
        assert "cannot be read as a bundle" in refused(file)
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        changed = bytearray(whole)
        changed[place] ^= 0x41
        file = tmp_path / f"changed{place}.zip"
        file.write_bytes(changed)
        try:
            judge(load_runs(file))
        except UserError as error:
            assert "\n" not in str(error) or "damaged" in str(error)


def test_another_zip_is_no_bundle(tmp_path):
    assert "it is no bundle of normlab" in refused(zipped(tmp_path / "x.zip", readme="hello"))
    damaged = zipped(tmp_path / "y.zip", **{"experiment.json": json.dumps({"runs": 3})})
    assert "experiment.json is damaged" in refused(damaged)


def test_the_commands_read_a_bundle_and_write_beside_it(runs, bundle, tmp_path):
    said = CliRunner().invoke(app, ["verdict", str(bundle)])
    assert said.exit_code == 0 and "Supported" in said.output
    said = CliRunner().invoke(app, ["audit", str(bundle)])
    assert "lines: 1" in said.output
    said = CliRunner().invoke(app, ["report", str(bundle), "--format", "json"])
    assert json.loads(said.output)["claims"][0]["outcome"] == "supported"
    said = CliRunner().invoke(app, ["agree", str(bundle), str(runs.path)])
    assert said.exit_code == 0 and "They agree." in said.output
    out = tmp_path / "again.zip"
    said = CliRunner().invoke(app, ["export", str(runs.path), "--bundle", str(out)])
    assert said.exit_code == 0 and out.read_bytes() == bundle.read_bytes()


def test_a_page_of_a_bundle_runs_no_code_that_it_names(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NORMLAB_TRUST", raising=False)
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\nclass Data: pass\n")
    for run in runs:
        run.write_config({**run.config, "data": {"name": "evil:Data"}})
    file = write_bundle(load_runs(runs.path), tmp_path / "e.zip")
    said = CliRunner().invoke(app, ["report", str(file)])
    assert said.exit_code == 0 and (tmp_path / "e-report.html").exists()
    assert not (tmp_path / "ran").exists()


def test_a_name_must_say_what_it_is(runs, tmp_path):
    with pytest.raises(UserError, match=r"ends in \.zip"):
        write_bundle(runs, tmp_path / "e.tar")
