"""Pixels and labels: from files to batches."""
