"""Evidence: what runs on disk amount to."""
