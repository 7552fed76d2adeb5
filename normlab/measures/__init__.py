"""Measures runs: the measure language, prices, and claims about them."""
