"""The demo: a click log with a planted structure, and a model that finds it."""
