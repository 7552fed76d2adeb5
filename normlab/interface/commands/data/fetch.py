"""`normlab data fetch`."""

from typing import Annotated

import typer


def command(
    names: Annotated[
        list[str],
        typer.Argument(help="The data sets to download.", metavar="NAME", show_default=False),
    ],
) -> None:
    """Download data sets and check their published hashes. A broken-off download goes on."""
    from normlab.catalogue import DATA
    from normlab.configs.admission import admit_typed

    for name in names:
        admit_typed(name)
        dataset = DATA.load(name)
        if not hasattr(dataset, "fetch"):
            print(f"{name}: {dataset.facts.how_to_get}")
            continue
        print(f"{name}: {dataset().fetch()}")
