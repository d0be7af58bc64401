"""Rows in the shape of any config, with a signal that its model can learn.

A config says which columns its features read and what stands in them: words of a vocabulary, ids
below a number, numbers between boundaries, maps whose keys are those of another column. From this
`columns` (of raw columns) and `encoded` (of generated ones) make a plan, `draw` and `render` make
Arrow columns of it, and the config's own feature generation turns them into ids and numbers.
`signal` gives each id and number an effect, `labels` draws labels whose probabilities follow, and
`write` writes files. The rows are those of `shape.Shape`.
"""
