"""The training run: loop, hooks, checkpoints, evaluation."""
