"""Tables of databases, and frames in memory."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.data import load
from nnbackend.errors import ArgumentError, DataError

ROWS = [
    (
        i,
        f"c{i % 4}",
        None if i % 13 == 0 else i * 0.5,
        f"2024-01-{1 + i % 28:02d}",
        "yn"[i % 3 == 0],
    )
    for i in range(120)
]
NAMES = ("id", "city", "size", "day", "late")
FEATURES = ("city=c0", "city=c1", "city=c2", "city=c3", "size", "size: no value",
            "day: days", "day: sine of year", "day: cosine of year", "day: sine of week",
            "day: cosine of week")  # fmt: skip


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Return a database; the rows of its table `keyed` are not in the order of the key."""
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("shop.db") as db:
        db.execute("create table orders(id integer, city text, size real, day text, late text)")
        db.executemany("insert into orders values (?, ?, ?, ?, ?)", ROWS)
        db.execute("create view large as select * from orders where size > 30")
        db.execute("create table keyed(code text primary key, y real)")
        db.executemany("insert into keyed values (?, ?)", [("b", 2.5), ("a", 1.5), ("c", 3.5)])
        db.execute("create table blank(a real, y real)")
    db.close()
    return "sqlite:///shop.db"


# ---------------------------------------------------------------- databases


def test_a_table_of_a_database(shop):
    data = load(f"{shop}?table=orders")
    assert data.feature_names == FEATURES
    assert (data.name, data.n_samples, data.classes) == ("orders", 120, ("n", "y"))
    assert data.ids["id"][:3] == ["0", "1", "2"]
    assert load(f"{shop}?table=large").n_samples == 54
    query = "select size, late from orders where size < 10 order by id"
    assert load(shop, query=query).feature_names == ("size",)
    new = load(f"{shop}?query=select * from orders where id = 13", coding=data.columns)
    np.testing.assert_array_equal(new.x, data.x[13:14])


def test_rows_are_in_the_order_of_the_key(shop):
    assert load(f"{shop}?table=keyed", column=["code=category"]).y.tolist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize(
    ("rest", "query", "text"),
    [
        ("?table=order", None, "'order'. Tables: blank, keyed, orders, large"),
        ("", None, "one table or one query. Received: neither"),
        ("?table=orders", "select 1", "Received: both"),
        ("?table=blank", None, "must have rows"),
        ("", "select * fro orders", 'near "fro": syntax error'),
        ("", "select size, size from orders", "'size' more than once"),
    ],
)
def test_what_a_database_cannot_answer_is_one_sentence(shop, rest, query, text):
    with pytest.raises(DataError) as caught:
        load(shop + rest, query=query)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_database_is_not_created(shop):
    with pytest.raises(DataError, match="no file 'shoq"):
        load("sqlite:///shoq.db?table=orders")
    assert not Path("shoq.db").exists()


@pytest.mark.parametrize("secret", ["me:hunter2@", "me:$HOME@", "me@host/db?password=hunter2&"])
def test_a_password_in_the_url_is_refused_and_not_shown(shop, secret):
    url = f"postgresql://{secret}host/db?table=a".replace("&host/db?", "&")
    with pytest.raises(DataError, match=r"user:\$NNBACKEND_DB@host") as caught:
        load(url)
    assert "hunter2" not in str(caught.value)


def test_the_password_of_an_environment_variable_is_used_and_not_shown(shop, monkeypatch):
    import sqlalchemy

    seen = []

    def create_engine(url):
        seen.append(url.password)
        raise sqlalchemy.exc.OperationalError("", {}, Exception("bad login hunter2"))

    monkeypatch.setattr(sqlalchemy, "create_engine", create_engine)
    url = "postgresql://me:$NNBACKEND_SHOP@host/db?table=a"
    with pytest.raises(DataError, match="variable NNBACKEND_SHOP must hold the password"):
        load(url)
    monkeypatch.setenv("NNBACKEND_SHOP", "hunter2")
    with pytest.raises(DataError, match=r"bad login \*\*\*"):
        load(url)
    assert seen == ["hunter2"]


def test_a_database_is_read_with_sqlalchemy(shop, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(DataError, match=r"pip install 'nnbackend\[sql\]'"):
        load(f"{shop}?table=orders")


def test_a_run_on_a_query_can_be_evaluated_elsewhere(shop, tmp_path, monkeypatch, capsys):
    query = "select * from orders where id >= 20 order by id"
    options = ["--hidden", "3", "--epochs", "1", "--device", "cpu", "--quiet", "--out", "run"]
    assert main(["train", shop, "--query", query, *options]) == 0
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert f"{query}" in (tmp_path / "run/config.toml").read_text(encoding="utf-8")
    assert main(["plot", str(tmp_path / "run"), "--kind", "boundary", "--out", "b.png"]) == 0
    capsys.readouterr()
    new = f"sqlite:///{tmp_path / 'shop.db'}?query=select * from orders where id < 3"
    assert main(["predict", str(tmp_path / "run"), new]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.split()] == ["id", *"012"]


def test_a_query_is_for_databases(tmp_path):
    with pytest.raises(ArgumentError, match=r"query has no effect for the built-in set 'iris'"):
        load("iris", query="select 1")
    (tmp_path / "a.csv").write_text("a,y\n1,2\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="query has no effect"):
        load(tmp_path / "a.csv", query="select 1")


# ---------------------------------------------------------------- frames


def columns() -> dict[str, list[object]]:
    found = dict(zip(NAMES, map(list, zip(*ROWS, strict=True)), strict=True))
    found["day"] = [datetime.date.fromisoformat(day) for day in found["day"]]
    return found


def frame(kind: str):
    if kind == "dict":
        return columns()
    if kind == "arrow":
        return pytest.importorskip("pyarrow").table(columns())
    if kind == "pandas":
        pandas = pytest.importorskip("pandas")
        table = pandas.DataFrame(columns())
        return table.assign(day=table["day"].astype("datetime64[ns]"))
    polars = pytest.importorskip("polars")
    table = polars.DataFrame(columns())
    return table.lazy() if kind == "lazy" else table


@pytest.mark.parametrize("kind", ["dict", "arrow", "pandas", "polars", "lazy"])
def test_load_takes_frames(kind, shop):
    data = load(frame(kind))
    expected = load(f"{shop}?table=orders")
    assert data.columns == expected.columns
    np.testing.assert_array_equal(data.x, expected.x)
    new = load(frame(kind), coding=data.columns)
    np.testing.assert_array_equal(new.x, data.x)
    with pytest.raises(ArgumentError, match="encoding has no effect for a table in memory"):
        load(frame(kind), encoding="utf-8")


@pytest.mark.parametrize("kind", ["arrow", "pandas", "polars", "lazy"])
def test_a_model_takes_frames_with_dates(kind):
    net = nn.Network([len(FEATURES), 2], "cross_entropy", device="numpy")
    model = nn.Model(net, scale="standard")
    model.fit(frame(kind), "late", epochs=2)
    rows = frame("dict")
    assert model.predict(frame(kind)).tolist() == model.predict(rows).tolist()
    one = {**{name: cells[5] for name, cells in rows.items()}, "day": "2024-01-06"}
    assert model.predict(one).tolist() == model.predict(rows).tolist()[5:6]


def test_a_lazy_frame_without_narwhals(monkeypatch):
    import sys

    lazy = frame("lazy")
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(DataError, match="pip install narwhals"):
        load(lazy)


def test_held_out_rows_of_a_model_do_not_change_its_columns():
    rows = 400
    rng = np.random.default_rng(0)
    table = {"zip": [f"z{i % 150}" for i in range(rows)], "a": rng.normal(size=rows)}
    y = rng.normal(size=rows)

    def fit(table):
        net = nn.Network([43, 1], "quadratic", device="numpy")
        model = nn.Model(net)
        model.fit(table, y, epochs=1, validation=0.25, seed=4)
        return model.preprocessing.columns["columns"], model

    known, _ = fit(table)
    used = np.random.Generator(np.random.Philox(4)).permutation(rows)[100:]
    held_out = np.setdiff1d(np.arange(rows), used)
    changed = {**table, "a": table["a"].copy()}
    changed["a"][held_out] = 1000.0
    assert fit(changed)[0] == known
    changed["a"][used] = 1000.0
    assert fit(changed)[0] != known
