"""List, show, compare and delete the runs on this machine."""

from normlab.interface.commands import Panel

PANEL = Panel.READ
