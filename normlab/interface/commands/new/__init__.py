"""Write a file of your own code that works, to change it."""

from pathlib import Path

from normlab.interface.commands import Panel

PANEL = Panel.MAKE


def start(template: str, name: str, kind: str) -> None:
    """Write the file, and print how a config names what is in it."""
    from normlab.interface.starters import own_code, write_new

    file, text = own_code(template, name)
    write_new(Path(file), text)
    cls = text.partition(f'"{file.removesuffix(".py")}:')[2].partition('"')[0]
    print(f"{file}: a config names it by  {kind}: {file.removesuffix('.py')}:{cls}")
