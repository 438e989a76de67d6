"""Accounts and their tokens: who somebody is, and what a token lets its bearer do."""
