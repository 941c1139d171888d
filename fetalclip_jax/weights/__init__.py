"""Weights of other libraries: read, mapped and written."""
