"""`normlab cite` and CITATION.cff say the same."""

from pathlib import Path

import yaml

from normlab.interface import citing
from tests.shared.command_line import normlab

FILE = Path(__file__).parents[2] / "CITATION.cff"


def test_the_command_prints_what_the_file_says(tmp_path):
    known = yaml.safe_load(FILE.read_text("utf-8"))
    assert (known["title"], known["license"]) == (citing.TITLE, citing.LICENCE)
    assert [author["name"] for author in known["authors"]] == [citing.AUTHORS]
    done = normlab("cite", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("@misc{normlab,\n")
    for words in (known["title"], f"version = {{{known['version']}}}", citing.AUTHORS,
                  citing.as_text(known["version"])):  # fmt: skip
        assert words in done.stdout
