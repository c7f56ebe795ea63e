"""What the columns of a table learn: from the training rows alone, and from their targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnbackend.cli.parts import fingerprint, read_data, split_test, training_positions
from nnbackend.cli.plan import prepare
from nnbackend.config import Settings
from nnbackend.data import ColumnCoding, load
from nnbackend.data.many_levels import PRIOR_ROWS
from nnbackend.devices import get_backend
from nnbackend.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def people(rows: int, change: dict[int, str] | None = None) -> str:
    """Return a table of all kinds of columns; `change` replaces rows except for their target."""
    lines = ["age,city,member,since,zip,y"]
    for i in range(rows):
        cells = f"{i % 37 if i % 11 else ''},c{i % 5},{'yes' if i % 3 else 'no'}"
        cells += f",2024-01-{1 + i % 28:02d},z{i % 150}"
        lines.append(f"{(change or {}).get(i, cells)},{'ab'[i * i % 7 % 2]}")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the training part alone


def test_held_out_rows_do_not_change_the_coding(write):
    settings = Settings(data=write(people(600)), validation=0.1, test=0.2)
    data = read_data(settings)
    used = training_positions(data, settings)
    held_out = sorted(set(range(600)) - set(used.tolist()))
    assert len(used) == 432
    assert data.columns.columns[0].fill == np.nanmedian(
        [float(i % 37) if i % 11 else np.nan for i in used]
    )
    odd = dict.fromkeys(held_out, "9999,nowhere,no,1999-01-01,z3")
    other = read_data(Settings(data=write(people(600, odd)), validation=0.1, test=0.2))
    assert other.columns == data.columns
    np.testing.assert_array_equal(other.x[used], data.x[used])
    changed = read_data(
        Settings(data=write(people(600, {int(i): odd[held_out[0]] for i in used[:300]})))
    )
    assert changed.columns != data.columns


@pytest.mark.parametrize("loss", [None, "binary_cross_entropy", "quadratic"])
def test_the_coding_is_fitted_to_the_rows_that_train(write, loss):
    settings = Settings(data=write(people(300)), loss=loss, hidden=(2,), seed=3)
    plan = prepare(settings, get_backend("cpu"))
    rest = plan.data.split_positions(0.2, 3)[0]
    expected = training_positions(plan.data, settings)
    np.testing.assert_array_equal(rest[plan.trainer.data.rows], expected)


def test_split_fits_the_columns_to_the_rest(write):
    data = load(write(people(400)))
    rest, held_out = data.split(0.25, seed=1)
    assert rest.columns == held_out.columns != data.columns
    ages = rest.x[:, 0][rest.x[:, 1] == 0.0]
    assert rest.columns.columns[0].fill == np.median(ages)
    again = rest.split(0.5, seed=2)[0]  # of the rows that are left
    assert again.n_samples == 150
    assert again.columns != rest.columns


def test_a_column_without_values_in_the_training_rows_is_left_out(write):
    data = load(
        write("a,b,y\n" + "".join(f"{i},{i if i == 7 else ''},{i % 2}\n" for i in range(9)))
    )
    part = data.fitted_to(np.arange(5))
    assert part.feature_names == ("a",)
    assert part.columns.columns[1].why == "no value in any training row"


def test_evaluate_finds_the_rows_of_a_run_with_many_categories(write):
    settings = Settings(data=write(people(600)))
    data = read_data(settings)
    again = load(settings.data, coding=data.columns)
    assert fingerprint(again) == fingerprint(data)
    test = split_test(data, settings).test
    np.testing.assert_array_equal(split_test(again, settings).test.x, test.x)


# ---------------------------------------------------------------- many categories


def codes(rows: int, seed: int, target=lambda mean, rng: float(mean + 0.1 * rng.normal())) -> str:
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).normal(size=200)
    levels = rng.integers(0, 200, rows)
    return "zip,y\n" + "".join(f"z{level},{target(means[level], rng)}\n" for level in levels)


def test_new_rows_get_the_mean_target_of_their_level(write):
    path = write(codes(2000, 1))
    data = load(path, task="regression")
    column = data.columns.columns[0]
    assert data.feature_names[-1] == "zip: mean target"
    lines = Path(path).read_text(encoding="utf-8").split("\n")[1:-1]
    of_level = data.y[[line.startswith("z7,") for line in lines]]
    new = load(write("zip\nz7\nnew\n", "new.csv"), coding=data.columns).x[:, -1]
    share = len(of_level) / (len(of_level) + PRIOR_ROWS)
    assert new[0] == pytest.approx(share * of_level.mean() + (1 - share) * data.y.mean())
    assert new[1] == pytest.approx(data.y.mean())
    assert len(column.known) == 200


def test_a_training_row_does_not_know_its_own_target(write):
    """A row with another target has the same feature; only later rows of its level change."""
    lines = codes(1000, 1).split("\n")
    data = load(write("\n".join(lines)), task="regression")
    level = lines[500].split(",")[0]
    before = [i for i, line in enumerate(lines[1:-1]) if line.startswith(f"{level},")]
    lines[500] = f"{level},{data.y[499] + 1000}"
    other = load(write("\n".join(lines)), task="regression")
    # The mean of all rows, which counts for 5 rows of a level, does change.
    moved = np.flatnonzero(np.abs(other.x[:, -1] - data.x[:, -1]) > 10)
    assert 499 not in moved
    assert set(moved) < set(before)
    assert len(moved)


def test_noise_in_the_target_is_not_learnt_from_the_encoding(write):
    """With levels of two rows and random targets, the training feature says nothing."""
    rng = np.random.default_rng(0)
    rows = "".join(f"z{i % 1000},{rng.normal()}\n" for i in range(2000))
    data = load(write("zip,y\n" + rows), task="regression")
    assert abs(np.corrcoef(data.x[:, -1], data.y)[0, 1]) < 0.1
    new = load(write("zip,y\n" + rows), coding=data.columns)
    assert np.corrcoef(new.x[:, -1], new.y)[0, 1] > 0.5  # as new rows they know it


def test_classes_have_one_mean_for_each_but_the_first(write):
    text = codes(900, 1, lambda mean, rng: "abc"[int(rng.integers(3))])
    data = load(write(text))
    assert data.feature_names[-2:] == ("zip: share of b", "zip: share of c")
    assert (data.x[:, -2:].sum(axis=1) < 1.0).all()
    assert data.columns.is_of_target.sum() == 2


def test_few_levels_have_no_means(write):
    data = load(write(people(50)), ignore=["zip"])
    assert not data.columns.is_of_target.any()


# ---------------------------------------------------------------- free text


def notes(rows: int = 60) -> str:
    words = ["the pump leaks oil again", "motor is too hot", "belt was replaced today"]
    lines = [f"{words[i % 3]} {i * 7919 % 1000},{i % 3 == 0}" for i in range(rows)]
    return "notes,y\n" + "\n".join(lines) + "\n"


def test_text_on_request_becomes_hashed_words(write):
    data = load(write(notes()), column=["notes=text"])
    assert data.n_features == 256
    np.testing.assert_allclose(np.linalg.norm(data.x, axis=1), 1.0)
    alike = data.x @ data.x.T
    assert alike[0, 3] > 0.7 > 0.4 > alike[0, 1]  # the same words, and others
    empty = load(write("notes\nNA\n?\nPUMP\n", "new.csv"), coding=data.columns)
    assert np.linalg.norm(empty.x, axis=1) == pytest.approx([0.0, 0.0, 1.0])


def test_the_features_of_text_are_the_same_in_every_process(write):
    path = write(notes())
    program = (
        "import sys; from nnbackend.data import load\n"
        "x = load(sys.argv[1], column=['notes=text']).x; print(x[0].nonzero()[0].tolist())"
    )
    here = load(path, column=["notes=text"]).x[0].nonzero()[0].tolist()
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, check=True)
    assert json.loads(run.stdout) == here


@pytest.mark.parametrize("kind", ["many", "text"])
def test_codings_are_restored(write, kind):
    text = notes() if kind == "text" else codes(900, 1, lambda mean, rng: "abc"[int(mean > 0)])
    data = load(write(text), column=["notes=text"] if kind == "text" else [])
    stored = json.loads(json.dumps(data.columns.to_dict()))
    again = ColumnCoding.from_dict(stored)
    assert again == data.columns
    assert again.feature_names == data.feature_names


# ---------------------------------------------------------------- names


def test_equal_names_of_features_are_numbered(write):
    rows = "".join(f"{'Lima' if i % 2 else 'Quito'},{i % 7},{i % 3 == 0}\n" for i in range(30))
    data = load(write("city,city=Lima,y\n" + rows))
    assert data.feature_names == ("city=Lima", "city=Quito", "city=Lima (2)")


COUNTRIES = ("ZA", "BW", "AO", "ZM", "ZW", "MZ", "MW", "LS", "SZ", "MG", "TZ")


def test_na_is_a_code_among_many_and_no_value_elsewhere(write):
    many = "".join(f"{'NA' if i % 12 == 0 else COUNTRIES[i % 11]},{i % 2}\n" for i in range(240))
    data = load(write("country,y\n" + many + ",1\n"))
    column = data.columns.columns[0]
    assert "NA" in column.levels
    assert column.has_gaps
    new = load(write("country\nNA\nn/a\nMars\n", "new.csv"), coding=data.columns)
    at = data.feature_names.index("country=NA")
    assert new.x[:, at].tolist() == [1.0, 0.0, 0.0]
    assert new.x[:, -1].tolist() == [0.0, 1.0, 0.0]
    few = "".join(f"{('NA', 'ZA', 'BW')[i % 3]},{i % 2}\n" for i in range(30))
    assert load(write("country,y\n" + few)).feature_names[-1] == "country: no value"
    chosen = load(write("country,y\n" + few), categorical=["country"])
    assert chosen.feature_names == ("country=BW", "country=NA", "country=ZA")
    words = load(write("country,y\n" + many.replace("ZA", "Zambia")))
    assert words.feature_names[-1] == "country: no value"


@pytest.mark.parametrize(
    "change",
    [
        {"means": [0.5]}, {"means": ["a", "b"]}, {"means": 3}, {"prior": [float("nan")]},
        {"prior": []}, {"targets": []}, {"targets": 1}, {"known": ["a", "a"]}, {"known": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_untrusted_column_of_many_categories_is_refused(change):
    column = {
        "kind": "many categories", "name": "zip", "levels": ["a"], "has_other": True,
        "has_gaps": False, "known": ["a", "b"], "means": [0.5, 1.5], "prior": [1.0],
        "targets": ["mean target"],
    }  # fmt: skip
    stored = {
        "columns": [column], "target": "y", "task": "regression", "classes": None,
        "has_header": True, "target_position": 1, "decimal": ".",
    }  # fmt: skip
    assert ColumnCoding.from_dict(stored).feature_names[-1] == "zip: mean target"
    with pytest.raises(DataError, match="A stored column coding"):
        ColumnCoding.from_dict({**stored, "columns": [{**column, **change}]})
    text = {"kind": "text", "name": "notes", "n_features": 10**12}
    with pytest.raises(DataError, match="invalid n_features"):
        ColumnCoding.from_dict({**stored, "columns": [text]})
