"""Holds what people see and call: the parts of the command line and of the notebook."""
