"""Embedding tables on a CPU: lookup, and an update that touches each row of the batch once.

::

    rule.py            which formula with which constants
    jit.py             numba helpers: prefetch, half floats          (imports numba)
    lookup.py          kernels: rows → output, gradient → row sums   (imports numba)
    update.py          kernels: row sums → new rows                  (imports numba)
    update_rowwise.py  the same, where a row's norm is needed        (imports numba)
    table.py           one table: weight, optimizer states, row gradients
    group.py           the tables of a collection, as autograd functions
    collections.py     TorchRec's interface on top

`tzrec.ops.accumulation` updates all tables of a model. The four numba modules are imported
inside the functions that use them.
"""
