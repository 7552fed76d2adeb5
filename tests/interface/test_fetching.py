"""`normlab data fetch` takes data sets with their settings."""

import pytest

from normlab.data import download
from normlab.data.medmnist_sets import SETS, SIZES
from normlab.errors import UserError
from normlab.interface.commands.data.fetch import command, described


def test_every_set_of_medmnist_is_fetched_at_every_size(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setenv("NORMLAB_DATA", str(tmp_path))
    monkeypatch.setattr(download, "download", lambda *all: asked.append(all) or all[1])
    pairs = [(name, size) for name in SETS for size in SIZES]
    command([word for name, size in pairs for word in ("medmnist", f"set={name}", f"size={size}")])
    assert len(asked) == 44
    for (name, size), (url, target, checksum, _) in zip(pairs, asked, strict=True):
        file = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
        assert url.endswith(f"/{file}") and target == tmp_path / "medmnist" / file
        assert checksum == f"md5:{SETS[name].md5[size]}"
    assert "medmnist: " in capsys.readouterr().out


def test_settings_belong_to_the_name_before_them():
    found = described(["medmnist", "size=64", "cifar10", "medmnist", "set=pathmnist"])
    assert [name for name, _ in found] == ["medmnist", "cifar10", "medmnist"]
    assert (found[0][1].size, found[0][1].set) == (64, "pneumoniamnist")
    assert (found[2][1].size, found[2][1].set) == (28, "pathmnist")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["size=28"], "needs the name of a data set before it"),
        (["medmnist", "set=chestmnist"], "up to fourteen labels"),
        (["medmnist", "set=bloodmnis", "siz=64"], "(?s)'set' must be one of.*did you mean 'size'"),
        (["medmnist", "size=32"], "28, 64, 128"),
        (["cifar11"], "cifar10"),
    ],
)
def test_mistakes_are_told(words, says):
    with pytest.raises(UserError, match=says):
        described(words)
