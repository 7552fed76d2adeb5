"""Figures of a comparison, by matplotlib: to look at, to restyle, to print.

Every figure is a function that takes a `Comparison` and returns a matplotlib `Figure`.
"""
