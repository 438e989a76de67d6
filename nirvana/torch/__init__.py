"""The rooms that need torch: modules, masks that hold, tracing, and methods that follow gradients."""
