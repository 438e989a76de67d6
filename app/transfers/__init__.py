"""Transfers: tickets of one task measured on another, by workers alone."""
