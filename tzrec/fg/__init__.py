"""Feature generation: from columns to ids and numbers. Arrow and NumPy, never torch."""
