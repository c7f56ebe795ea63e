"""The sources of tables: text files, Parquet files, databases, and frames in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from nnbackend.data.csv_files import TextPositions, read_csv
from nnbackend.data.frames import as_table
from nnbackend.data.parquet_files import read_parquet
from nnbackend.data.sql_tables import name_of, read_sql
from nnbackend.data.tables import LeastCodes, Table


class TableSource(NamedTuple):
    """Where a table is, and how it is read.

    kind: "csv", "parquet", "sql" or "frame".  header, encoding: of text.  query: of a database.
    """

    source: Any
    kind: str
    header: bool | None = None
    encoding: str | None = None
    query: str | None = None

    @property
    def name(self) -> str:
        """The name of the data set."""
        if self.kind == "frame":
            return "table"
        return name_of(self.source) if self.kind == "sql" else Path(self.source).name.split(".")[0]

    @property
    def where(self) -> str:
        """The source for messages."""
        what = {"frame": "a table in memory", "sql": "a database"}
        return what.get(self.kind) or f"{Path(self.source).name}, which is no text"

    @property
    def unused(self) -> dict[str, Any]:
        """The options that have no effect for this kind of source."""
        text = {} if self.kind == "csv" else {"header": self.header, "encoding": self.encoding}
        return text if self.kind == "sql" else {**text, "query": self.query}

    def read(
        self, text_positions: TextPositions | None = None, least_codes: LeastCodes | None = None
    ) -> Table:
        """Return the table. text_positions, least_codes: see `read_csv`."""
        if self.kind == "csv":
            return read_csv(
                Path(self.source), header=self.header, text_positions=text_positions,
                encoding=self.encoding, least_codes=least_codes,
            )  # fmt: skip
        if self.kind == "parquet":
            return read_parquet(Path(self.source), least_codes)
        if self.kind == "sql":
            return read_sql(self.source, self.query, least_codes)
        table = as_table(self.source, "table")
        assert table is not None
        least = least_codes(table.names, "table") if least_codes else {}
        named = {table.names[at]: n for at, n in least.items()}
        table = as_table(self.source, "table", least_codes=named) if named else table
        assert table is not None
        return table
