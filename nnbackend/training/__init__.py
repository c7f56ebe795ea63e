"""Training: optimizers, schedules, mini-batches and the training loop."""
