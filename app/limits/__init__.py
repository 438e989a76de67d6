"""How often each caller may do what: one table of rates, and the counters behind it."""
