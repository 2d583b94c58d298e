"""The experiments of the papers: one file, one question."""
