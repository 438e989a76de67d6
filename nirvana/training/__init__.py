"""Training: recipe, schedule, events, cost and the one loop."""
