import pytest

from experiments import exactness


@pytest.mark.usefixtures("as_users_compile")
def test_the_table_has_a_line_a_library_and_normlab_is_exact(monkeypatch, capsys):
    monkeypatch.setattr(exactness, "SHAPE", (8, 4, 4, 16))
    exactness.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| normlab")]
    assert len(rows) == len(exactness.AXES)
    errors = [float(number) for row in rows for number in row.replace("/", "|").split("|")[2:-1]]
    assert len(errors) == 2 * len(exactness.DATA) * len(rows)
    assert max(errors) < 1e-6
