"""Finds the configs that come with normlab by their names: `normlab run quickstart`."""

from pathlib import Path

from normlab.errors import UserError, did_you_mean

PACKAGE = Path(__file__).parents[1]


def shipped() -> dict[str, Path]:
    """List the configs that come with normlab: name -> file.

    They lie in the installed package, or at the top of a copy of the repository.

    >>> "quickstart" in shipped()
    True
    """
    folders = (PACKAGE / "shipped", PACKAGE.parent / "configs")
    folder = next((one for one in folders if one.is_dir()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def config_file(named: Path) -> Path:
    """Return the file that is named: one that exists, or else a config of normlab by its name.

    >>> config_file(Path("quickstart")).name, config_file(Path("none.yaml")).name
    ('quickstart.yaml', 'none.yaml')
    """
    is_name = named.name == str(named) and not named.suffix
    return shipped().get(named.name, named) if is_name and not named.exists() else named


def shipped_text(name: str) -> str:
    """Return the text of a config that comes with normlab.

    Raises:
        UserError: there is none of this name; the message has the nearest.
    """
    found = shipped()
    if name not in found:
        raise UserError(f"normlab has no config '{name}'; {did_you_mean(name, found)}")
    return found[name].read_text(encoding="utf-8")
