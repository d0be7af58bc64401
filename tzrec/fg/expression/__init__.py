"""The expression language of expr_feature, normalizers and custom operators."""

from __future__ import annotations

from tzrec.fg.expression.evaluate import Expression

__all__ = ["Expression"]
