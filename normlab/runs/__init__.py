"""Runs: from a config file to run directories that can be resumed, read and compared."""
