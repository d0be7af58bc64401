"""Embedding tables on a CPU: lookup, and an update in the backward pass that touches a row once.

::

    rule.py         which formula with which constants
    jit.py          numba helpers: prefetch, half floats          (imports numba)
    lookup.py       kernels: rows → output, gradient → row sums   (imports numba)
    update.py       kernels: row sums → new rows                  (imports numba)
    table.py        one table: weight, optimizer states, kernels
    group.py        the tables of a collection, as autograd functions
    collections.py  TorchRec's interface on top

The three numba modules are imported inside the functions that use them.
"""
