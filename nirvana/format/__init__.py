"""Tickets as files: container, manifest, masks and initial values, read strictly (docs/format.md)."""
