"""How a network learns: update rules, schedules, mini-batches, the loop."""
