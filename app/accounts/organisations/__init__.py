"""Organisations: owners of names whose members publish, change and read in their name."""
