"""Holds the engines on which a sweep can be made, one a file, each found by its name."""
