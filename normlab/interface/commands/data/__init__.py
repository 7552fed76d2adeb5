"""List and download data sets."""

from normlab.interface.commands import Panel

PANEL = Panel.LOOK_UP
