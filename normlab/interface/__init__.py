"""What people see and call: the command line's parts and the notebook's."""
