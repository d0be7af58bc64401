"""Tables whose rows are given to ids as they come (``zch``, ``dynamicemb``).

::

    seen.py         the ids that came since the map last changed, with counts and steps
    id_map.py       `IdMap`: which id has which row, who is admitted and who is evicted
    collections.py  collections of tables behind such maps

The map is whole on every rank and changes the same way on each; the rows of the table are
TorchRec's to place. `tzrec.training.hooks.hash_tables` runs the maps, `tzrec.training.hash_rows`
makes rows begin anew.
"""
