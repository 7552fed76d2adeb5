"""What is measured of a run: the measure language, prices, claims."""
