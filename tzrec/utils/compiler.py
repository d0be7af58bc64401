"""The C++ compiler that torch needs to make code of a model."""

from __future__ import annotations

from tzrec.errors import MissingDependencyError


def find_compiler(what: str, *, otherwise: str) -> str:
    """Returns the compiler that torch would take.

    Args:
        what: needs it, for the error.
        otherwise: what can be done without one, for the error.

    Raises:
        MissingDependencyError: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return str(get_cpp_compiler())
    except Exception as error:
        raise MissingDependencyError(
            f"{what} needs a C++ compiler: {error}",
            hint=f"Debian and Ubuntu: apt-get install g++; or {otherwise}",
        ) from error
