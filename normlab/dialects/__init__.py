"""Other libraries' conventions: a layer of theirs as an entry of ours."""
