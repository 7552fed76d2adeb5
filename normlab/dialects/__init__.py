"""Translates layers of other libraries into entries of the catalogue."""
