"""`make reproduce`: the experiments behind docs/results.md, stopped and taken up at any time."""
