"""Import paths of the interface; the code lives elsewhere."""
