"""`normlab data list`."""


def command() -> None:
    """List the data sets that are on this machine, where they lie, and how to get the others."""
    from normlab.data.dataset import data_root
    from normlab.data.listing import status

    print(f"looking in {data_root()} (set NORMLAB_DATA to change it)")
    for entry in status():
        size = f", {entry.size_bytes / 1e6:.0f} MB" if entry.size_bytes else ""
        here = f"{entry.path or 'built in'}{size}" if entry.present else f"({entry.how_to_get})"
        state = "here" if entry.present else "yours" if entry.yours else "absent"
        print(f"{entry.name:10} {state:6} {here}")
