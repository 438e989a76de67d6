"""Pruning: searches for tickets: methods, goals, levels and their reports."""
