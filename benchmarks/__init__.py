"""Measurements and comparisons. Nothing here is needed to matte a picture."""
