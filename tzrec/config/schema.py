"""Questions about the schema itself."""

from __future__ import annotations

import functools

from tzrec.config.messages import AnyDescriptor, is_message
from tzrec.protos.pipeline_pb2 import EasyRecConfig


def _messages() -> dict[str, AnyDescriptor]:
    """Returns every message type that a config can hold, by name, outermost first."""
    found: dict[str, AnyDescriptor] = {}
    queue: list[AnyDescriptor] = [EasyRecConfig.DESCRIPTOR]
    while queue:
        descriptor = queue.pop(0)
        if descriptor.full_name in found or not descriptor.full_name.startswith("tzrec."):
            continue
        found[descriptor.full_name] = descriptor
        queue += [field.message_type for field in descriptor.fields if is_message(field)]
    return {descriptor.name: descriptor for descriptor in found.values()}


@functools.cache
def owners(field_name: str) -> tuple[str, ...]:
    """Returns the message types that have a field of that name, outermost first."""
    return tuple(
        name
        for name, descriptor in _messages().items()
        if field_name in descriptor.fields_by_name and not name.endswith("Entry")
    )
