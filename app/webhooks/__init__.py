"""Webhooks: the log of changes, sent to whoever asks for it."""
