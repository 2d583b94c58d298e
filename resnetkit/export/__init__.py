"""A model leaves: files that other libraries open."""
