"""Trees of items for ``tdm_sampler``: build them, rebuild them by trained vectors, walk them."""
