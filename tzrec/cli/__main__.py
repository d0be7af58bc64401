"""``python -m tzrec.cli`` is the same as ``tzrec``."""

from __future__ import annotations

from tzrec.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
