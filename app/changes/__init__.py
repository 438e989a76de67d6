"""Changes: an append-only log of everything that a mirror must follow."""
