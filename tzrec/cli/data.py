"""``tzrec data``."""

from __future__ import annotations

from tzrec.tools.data_convert import add_arguments, run

__all__ = ["DESCRIPTION", "EXAMPLES", "add_arguments", "run"]

DESCRIPTION = "Converts public data sets to input files of tzrec."
EXAMPLES = """\
  tzrec data convert frappe IN OUT"""
