"""Evaluations: verdicts that workers measured. Nobody edits one, and no owner deletes one."""
