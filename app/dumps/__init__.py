"""Dumps: everything that is public, as files."""
