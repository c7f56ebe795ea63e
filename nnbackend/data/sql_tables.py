"""Reader of tables in a database, by a URL of SQLAlchemy; needs the extra `sql`.

A password comes from an environment variable that the URL names, as in
postgresql://me:$NNBACKEND_SHOP@host/shop?table=orders. So none is in a config.toml or in a message.
The prefix is required: the config.toml of others must not send any other variable to a server.
"""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from nnbackend.data.frames import as_table
from nnbackend.data.table_faults import check_names, listed
from nnbackend.data.tables import LeastCodes, Table
from nnbackend.errors import DataError, Mention

URL = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\+[A-Za-z0-9_]+)?://.*", re.DOTALL)
VARIABLE = re.compile(r"\$(?:(NNBACKEND_\w+)|\{(NNBACKEND_\w+)\})")
SECRETS = {"password", "passwd", "pwd", "sslpassword"}
OWN = ("table", "query")  # the parameters of a URL that are ours


def is_url(source: object) -> bool:
    """Return True if a source is the URL of a database."""
    return isinstance(source, str) and URL.fullmatch(source) is not None


def absolute(source: str) -> str:
    """Return a URL with the absolute path of a database in a file."""
    head, mark, rest = source.partition(":///")
    path, question, parameters = rest.partition("?")
    if not mark or not head.startswith("sqlite") or not path or path == ":memory:":
        return source
    return f"{head}:///{Path(path).resolve().as_posix()}{question}{parameters}"


def read_sql(source: str, query: str | None = None, least_codes: LeastCodes | None = None) -> Table:
    """Read a table, or the result of a query.

    source: a URL with ?table=NAME or ?query=SELECT..., or a URL alone with `query`. The rows of a
    table are in the order of its primary key.
    Raises: DataError without SQLAlchemy, for a password in the URL, and for failed queries.
    """
    sql = _sqlalchemy()
    place = _place(sql, source, query)
    engine: Any = None
    try:
        engine = sql.create_engine(place.url)
        with engine.connect() as connection:
            result = connection.execute(place.select(sql, engine))
            names = tuple(map(str, result.keys()))
            rows = result.fetchall()
    except (sql.exc.SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        if place.url.password:
            cause = cause.replace(str(place.url.password), "***")
        raise DataError(
            f"{place.shown}: the database must answer. Received: {cause}. Check the URL, the name "
            "of the table and the query."
        ) from error
    finally:
        if engine is not None:
            engine.dispose()
    check_names(names, place.name)
    if not rows:
        raise DataError(f"{place.shown}: a table must have rows. Received: none.")
    least = least_codes(names, place.name) if least_codes else {}
    cells = {
        name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    by_name = {names[at]: n for at, n in least.items()}
    table = as_table(cells, place.name, least_codes=by_name)
    assert table is not None
    return table


def name_of(source: str) -> str:
    """Return the name of the data of a URL: of its table, else of its database."""
    found = re.search(r"[?&]table=([^&]+)", source)
    return found[1] if found else Path(source.partition("?")[0]).stem or "query"


class _Place(NamedTuple):
    """A table or a query of a database. shown: the URL for messages."""

    url: Any
    shown: str
    table: str | None
    query: str | None

    @property
    def name(self) -> str:
        return self.table or "query"

    def select(self, sql: Any, engine: Any) -> Any:
        """Return the statement that reads the rows."""
        if self.query is not None:
            return sql.text(self.query)
        schema, _, name = str(self.table).rpartition(".")
        inspector = sql.inspect(engine)
        if not inspector.has_table(name, schema or None):
            known = [*inspector.get_table_names(schema or None)]
            known += inspector.get_view_names(schema or None)
            raise DataError(
                f"{self.shown}: the table must exist. Received: {self.table!r}. "
                f"Tables: {listed(known, len(known)) or 'none'}."
            )
        table = sql.table(name, schema=schema or None)
        key = inspector.get_pk_constraint(name, schema or None).get("constrained_columns", [])
        return sql.select(sql.text("*")).select_from(table).order_by(*map(sql.column, key))


def _place(sql: Any, source: str, query: str | None) -> _Place:
    """Return the parsed URL. Raises: DataError for an invalid one."""
    try:
        url = sql.make_url(source)
    except sql.exc.ArgumentError as error:
        raise DataError(
            "The URL of a database must be as in sqlite:///shop.db?table=orders. Received: one "
            "that SQLAlchemy cannot read."
        ) from error
    asked = {name: url.query.get(name) for name in OWN}
    if query is not None:
        asked["query"] = query
    shown = f"{url.get_backend_name()}://.../{Path(url.database or '').name}"
    if (asked["table"] is None) == (asked["query"] is None):
        raise DataError(
            f"{shown}: a database needs one table or one query. Received: "
            f"{'both' if asked['table'] else 'neither'}. Write ?table=NAME at the end of the URL, "
            "or pass ", Mention("query", "SELECT ..."), ".",
        )  # fmt: skip
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(url.database).is_file():
        raise DataError(f"{shown}: the database must exist. Received: no file {url.database!r}.")
    url = _with_password(url, shown).difference_update_query(OWN)
    return _Place(url, shown, asked["table"], asked["query"])


def _with_password(url: Any, shown: str) -> Any:
    """Return a URL with the password of the environment variable that it names."""
    if url.password is None and not SECRETS & set(url.query):
        return url
    found = VARIABLE.fullmatch(str(url.password or ""))
    if found is None or SECRETS & set(url.query):
        raise DataError(
            f"{shown}: a password must come from an environment variable NNBACKEND_..., "
            "so that no file and no message shows it. Received: another password in the URL. Write "
            "user:$NNBACKEND_DB@host, in single quotation marks in a shell, and set NNBACKEND_DB."
        )
    name = found[1] or found[2]
    if name not in os.environ:
        raise DataError(
            f"{shown}: the environment variable {name} must hold the password. Received: no such "
            f"variable. Set it: export {name}=..."
        )
    return url.set(password=os.environ[name])


def _sqlalchemy() -> Any:
    try:
        return importlib.import_module("sqlalchemy")
    except ImportError as error:
        raise DataError(
            "Databases are read with SQLAlchemy, which must be importable. "
            f"Received: {error}. Install it with: pip install 'nnbackend[sql]'"
        ) from error
