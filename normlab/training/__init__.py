"""Training: a pure step, compiled once, and the loop around it."""
