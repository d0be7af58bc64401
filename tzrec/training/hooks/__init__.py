"""What watches the training loop: progress, checkpoints, evaluation, guards."""
