"""Sizes and ages of a fetus: the WHO chart, Hadlock's curves, ellipses."""
