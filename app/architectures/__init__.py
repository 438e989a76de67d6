"""Architectures: the graphs that published tickets were cut from."""
