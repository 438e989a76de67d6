"""The worker: runs the jobs that people ask the service for."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
"""An object of JSON: what passes between rounds, child processes and the database."""
