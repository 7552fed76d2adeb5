"""`normlab data fetch`."""

from typing import Annotated, Any

import typer

from normlab.errors import UserError


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            help="The data sets to download. Settings of one stand behind its name: medmnist "
            "set=bloodmnist size=64.",
            metavar="NAME [SETTING=VALUE]...",
            show_default=False,
        ),
    ],
) -> None:
    """Download data sets and check their published hashes. A broken-off download goes on."""
    for name, dataset in described(words):
        if hasattr(dataset, "fetch"):
            print(f"{name}: {dataset.fetch()}")
        else:
            print(f"{name}: {dataset.facts.how_to_get}")


def described(words: list[str]) -> list[tuple[str, Any]]:
    """Make the data sets that words name, as a config would.

    Args:
        words: names, and `setting=value` behind the name that it is for.

    Raises:
        UserError: there is no such data set, or it has no such setting; all mistakes at once.

    >>> described(["medmnist", "set=bloodmnist", "size=64", "shapes"])[0][1].url.split("/")[-1]
    'bloodmnist_64.npz'
    """
    from normlab.catalogue import DATA
    from normlab.configs.build import Call
    from normlab.configs.document import ConfigError, Mark, Node, parse
    from normlab.configs.signatures import check_call

    calls: list[dict[str, Node]] = []
    for word in words:
        mark = Mark.of_override(word)
        key, equals, value = word.partition("=")
        if not equals:
            calls.append({"name": Node(word, mark)})
        elif not calls:
            raise UserError(
                f"'{word}' needs the name of a data set before it, as in medmnist {word}"
            )
        else:
            calls[-1][key] = parse(value, str(mark)).marked(mark)
    checked = [check_call(Node(call, call["name"].mark), DATA, "data") for call in calls]
    if problems := [problem for _, found in checked for problem in found]:
        raise ConfigError(problems)
    named = [Call.of(section) for section, _ in checked if section is not None]
    return [(call.name, DATA.load(call.name)(**call.arguments)) for call in named]
