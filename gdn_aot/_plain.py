"""The base of small records in modules that the loader needs at once."""

from __future__ import annotations


class Plain:
    """A record whose fields are its slots.

    Importing ``dataclasses`` or ``typing`` takes as long as installing the loader may take in all; what a serving
    process imports at start is written without them.
    """

    __slots__: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Plain) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(tuple(self.to_dict().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"
