"""Optimizers, learning-rate schedules, gradient clipping and scaling, from the config."""
