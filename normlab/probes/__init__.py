"""Probes: what a network does inside while it trains, each a pure function of one moment of it."""
