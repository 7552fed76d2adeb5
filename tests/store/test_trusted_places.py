"""What a stranger's folder of runs holds neither writes elsewhere nor speaks to the terminal."""

import json

import pytest

from normlab.errors import UserError
from normlab.interface.commands.report import Form, command
from normlab.store.files import DamagedError
from normlab.store.layout import OF_RUN
from normlab.store.loading import load_runs
from normlab.store.run import Run
from tests.shared.simulated import simulate


@pytest.mark.parametrize("name", OF_RUN)
def test_a_run_with_a_link_in_it_is_not_written(tmp_path, name):
    target, run = tmp_path / "mine", Run(tmp_path / "runs" / "a")
    target.write_text("precious")
    run.path.mkdir(parents=True)
    (run.path / name).symlink_to(target)
    with pytest.raises(UserError, match="it is a link"), run.locked():
        pass
    assert target.read_text() == "precious"


def test_a_folder_of_a_run_that_is_a_link_is_not_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="it is a link"), Run(tmp_path / "run").locked():
        pass
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_report_takes_the_place_of_a_link_and_does_not_follow_it(tmp_path, capsys):
    runs = simulate(tmp_path / "tiny", {"a": [0.6, 0.61], "b": [0.5, 0.52]})
    (tmp_path / "mine").write_text("precious")
    (runs.path / "report.html").symlink_to(tmp_path / "mine")
    command([runs.path], form=Form.html)
    assert (tmp_path / "mine").read_text() == "precious"
    page = (runs.path / "report.html").read_text()
    assert "Content-Security-Policy" in page and "default-src 'none'" in page


@pytest.mark.parametrize("place", ["../../secret/run", "..", "a/b", "/etc", "a\x1b[2J"])
def test_an_experiment_lists_plain_names_alone(tmp_path, place):
    runs = simulate(tmp_path / "tiny", {"a": [0.6]})
    file = runs.path / "experiment.json"
    about = json.loads(file.read_text())
    about["runs"][0]["run"] = place
    file.write_text(json.dumps(about))
    with pytest.raises(DamagedError, match="is damaged"):
        load_runs(runs.path)


def test_names_do_not_speak_to_the_terminal(tmp_path):
    runs = simulate(tmp_path / "tiny", {"a": [0.6]})
    file = runs.path / "experiment.json"
    about = json.loads(file.read_text())
    about["question"] = "\x1b]0;title\x07why?"
    file.write_text(json.dumps(about))
    with pytest.raises(DamagedError) as error:
        load_runs(runs.path)
    assert "\x1b" not in str(error.value)


def test_the_words_of_an_error_are_shown_without_their_colours(tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    run.write_status("failed", error="\x1b[31mno\x1b[0m")
    assert run.status["error"] == "\\x1b[31mno\\x1b[0m"
