"""Public data sets as input of `fg_mode: FG_NONE`, with a config that runs.

A data set is one module with ``FILES`` (what it needs) and ``convert(source) -> Converted``.
"""
