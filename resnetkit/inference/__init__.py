"""A model is used."""
