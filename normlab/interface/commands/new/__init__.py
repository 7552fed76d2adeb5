"""Write a file of your own code that works, to change it."""

from pathlib import Path

from normlab.interface.commands import Panel

PANEL = Panel.MAKE


def start(template: str, name: str, kind: str) -> None:
    """Write the file, and print how a config names what is in it."""
    from normlab.interface.starters import class_of, own_code, write_new
    from normlab.interface.trusting import is_all_ones_own
    from normlab.store.trusted import trust

    name_of_file, text = own_code(template, name)
    file = Path(name_of_file)
    alone = is_all_ones_own(Path.cwd())
    write_new(file, text)
    if alone:
        trust(Path.cwd())
    print(f"{file}: a config names it by  {kind}: {file.stem}:{class_of(name)}")
