"""Networks with slots: the same body around any normaliser and any activation."""
