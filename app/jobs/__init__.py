"""Jobs: asking for a pruning or a verification, and watching it."""
