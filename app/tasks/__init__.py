"""Tasks: what tickets are good for."""
