"""Reports of tickets, and quarantine: what an admin may hide, reversibly and on the record."""
