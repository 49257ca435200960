"""Which columns of a table are read: by name, or by position from 0 (negative from the end)."""

from __future__ import annotations

from collections.abc import Sequence

from locex.errors import DataUnavailable

Column = str | int


class Columns:
    """The columns of one file, found by name and position; raises `DataUnavailable` for those that it lacks."""

    def __init__(self, file: str, names: list[str], *, named: bool = True) -> None:
        """``named``: whether ``names`` are the file's own, or only its positions."""
        self.file, self.names = file, names
        self._named = named

    def position(self, column: Column) -> int:
        """Return the position of one column."""
        if self._named and isinstance(column, str) and column in self.names:
            if self.names.count(column) > 1:
                raise DataUnavailable(
                    f"{self.file!r}: several columns are named {column!r}", remedy="name it by its position"
                )
            return self.names.index(column)
        try:
            return range(len(self.names))[int(column)]
        except (ValueError, IndexError):
            listing = ", ".join(self.names) if self._named else f"0 to {len(self.names) - 1}"
            raise DataUnavailable(
                f"{self.file!r} has no column {column!r}; its columns are: {listing}",
                remedy="correct target, features, delimiter or header of the data source",
            ) from None

    def positions(self, columns: Sequence[Column]) -> list[int]:
        """Return the positions of distinct columns."""
        positions = [self.position(column) for column in columns]
        if len(set(positions)) < len(positions):
            raise DataUnavailable(
                f"{self.file!r}: {list(columns)} names a column twice", remedy="name every column once"
            )
        return positions

    def features(self, wanted: Sequence[Column] | None, others: Sequence[int]) -> list[int]:
        """Return the positions of the features: those wanted, or all but ``others``."""
        if wanted is None:
            features = [position for position in range(len(self.names)) if position not in others]
        else:
            features = self.positions(wanted)
        both = sorted(self.names[position] for position in set(others) & set(features))
        if both or not features:
            what = f"columns {both} are both target and feature" if both else "no column is left as a feature"
            raise DataUnavailable(f"{self.file!r}: {what}", remedy="correct target and features of the data source")
        return features
