"""Verification: train a ticket again beside a dense baseline and controls, and give a verdict."""
