"""A model behind HTTP: raw columns in, named scores out."""
