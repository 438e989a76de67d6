"""`make bench-verdicts`: how often the protocol is wrong, measured with planted tickets on digits."""
