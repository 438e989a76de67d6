"""The client of a Nirvana service."""
