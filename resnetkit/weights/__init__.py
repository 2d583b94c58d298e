"""Trained numbers: the model file, and building a network with or without them."""
