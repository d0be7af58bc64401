"""Losses; each returns one value per row, models take the (weighted) mean."""
