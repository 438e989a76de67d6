"""Tickets: publish, find, show, hand out, yank."""
