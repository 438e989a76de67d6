"""Networks as data: a graph of ops, the shapes and costs that follow from it, and a zoo."""
