"""Inference engines: one loaded network each, chosen by name."""
