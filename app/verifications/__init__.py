"""Verifications of a ticket: asking for one (a job), and reading what was measured (evaluations)."""
