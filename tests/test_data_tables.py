"""CSV and Parquet: detection of the format, coding of features, invalid files."""

from __future__ import annotations

import gzip
import io
import json
import re
from itertools import combinations, product

import numpy as np
import pytest

from nnbackend.data import ColumnCoding, load
from nnbackend.data import csv_files as csv_module
from nnbackend.errors import ArgumentError, DataError


@pytest.fixture
def write(tmp_path):
    def write(text, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        content = text.encode(encoding)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


PLAIN = "a,b,c\n1,2,0\n3,4.5,1\n5,6,0\n7,8,1\n"


@pytest.mark.parametrize(
    "name", ["table.csv", "table.csv.gz", "table.tsv", "table.TXT", "table.data.gz"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_numbers(write, name, delimiter, end, encoding):
    text = PLAIN.replace(",", delimiter).replace("\n", end)
    data = load(write(text, name, encoding))
    assert data.x.tolist() == [[1, 2], [3, 4.5], [5, 6], [7, 8]]
    assert data.x.dtype == np.float64
    assert data.y.tolist() == [0, 1, 0, 1]
    assert (data.name, data.task, data.classes) == ("table", "classification", (0, 1))
    assert data.feature_names == ("a", "b")
    assert data.n_dropped == 0


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN + "  \n",
        PLAIN.replace("3,4.5", ' 3 , "4.5"'),
        PLAIN.replace("3,4.5", '"3","4.5"').rstrip(),
    ],
)
def test_the_fast_and_the_general_reader_agree(write, text, monkeypatch):
    quick = load(write(text))
    monkeypatch.setattr(csv_module, "_read_numbers", lambda path, layout: None)
    general = load(write(text))
    for data in (quick, general):
        assert data.x.tolist() == [[1, 2], [3, 4.5], [5, 6], [7, 8]]
        assert data.y.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (None, ("a", "b")),
        ("c", ("a", "b")),
        (-1, ("a", "b")),
        ("-1", ("a", "b")),
        ("a", ("b", "c")),
        (0, ("b", "c")),
        (-3, ("b", "c")),
        ("1", ("a", "c")),
    ],
)
def test_target_by_name_and_index(write, target, names):
    data = load(write(PLAIN), target=target, task="regression")
    assert data.feature_names == names
    assert data.columns.target == ({"a", "b", "c"} - set(names)).pop()


def test_a_target_that_does_not_exist_is_refused(write):
    path = write("length,width,species\n1,2,0\n3,4,1\n1,2,0\n3,4,1\n")
    with pytest.raises(DataError, match=r"target='specis'.*Did you mean 'species'\?"):
        load(path, target="specis")
    with pytest.raises(DataError, match=r"Did you mean 'species'\?"):
        load(path, target="SPECIES")
    for target in (3, -4, "7"):
        with pytest.raises(DataError, match="between -3 and 2"):
            load(path, target=target)
    with pytest.raises(ArgumentError, match=r"target=1\.5"):
        load(path, target=1.5)
    wide = ",".join(f"column number {i}" for i in range(500)) + "\n" + ",".join("1" * 500) + "\n"
    with pytest.raises(DataError) as caught:
        load(write(wide), target="column nummer 7")
    assert "Did you mean 'column number 7'?" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_no_header(write):
    path = write("5.1,3.5,setosa\n4.9,3.0,setosa\n6.0,2.2,virginica\n6.1,2.3,virginica\n")
    data = load(path)
    assert data.classes == ("setosa", "virginica")
    assert data.feature_names == ("column_0", "column_1")
    assert data.n_samples == 4
    with pytest.raises(DataError, match="a target name needs a header"):
        load(path, target="species")
    assert load(write("1,2,0\n3,4,1\n5,6,0\n7,8,1\n")).n_samples == 4


@pytest.mark.parametrize(
    ("text", "is_header"),
    [
        ("a,b\n1,x\n2,y\n", True),
        ("0,1,label\n1,2,3\n4,5,6\n", True),  # pandas writes column numbers
        ("p,x\ne,y\np,x\n", False),  # all text, and a cell recurs in its column
        ("colour,class\nred,x\nblue,y\n", True),
        ("1.5,high\n2.5,low\n", False),
        ("a,?\n1,2\n", True),
        ("?,1\n2,3\n", False),
        ("1,2\n3,4\n", False),
        ("a,b\n?,x\n1,y\n", True),
    ],
)
def test_header_detection(write, text, is_header):
    options = {"task": "classification", "missing": "drop"}
    n_lines = text.count("\n")
    data = load(write(text), **options)
    assert data.columns.has_header == is_header
    assert data.n_samples + data.n_dropped == n_lines - is_header


def test_the_header_option_overrides_detection(write):
    path = write("1,2\n3,4\n5,4\n")
    assert load(path, header=True, task="regression").feature_names == ("1",)
    path = write("name,class\na,x\nb,y\nc,x\n")
    data = load(path, header=False)
    assert data.n_samples == 4
    assert data.classes == ("class", "x", "y")


def test_text_and_booleans_become_features(write):
    data = load(
        write(
            "colour,size,open,flag,price\n"
            "red,1,true,Yes,1.5\n"
            "blue,2,False,no,2.5\n"
            '"dark, red",3,TRUE,NO,3.5\n'
            "red,4,false,yes,4.5\n"
        )
    )
    assert data.feature_names == (
        "colour=blue",
        "colour=dark, red",
        "colour=red",
        "size",
        "open",
        "flag",
    )
    assert data.x.tolist() == [
        [0, 0, 1, 1, 1, 1],
        [1, 0, 0, 2, 0, 0],
        [0, 1, 0, 3, 1, 0],
        [0, 0, 1, 4, 0, 1],
    ]
    assert data.task == "regression"
    assert data.y.tolist() == [1.5, 2.5, 3.5, 4.5]
    assert [column.kind for column in data.columns.columns] == [
        "category",
        "number",
        "yes/no",
        "yes/no",
    ]


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_a_column_with_late_text_is_text_from_the_first_row(write, monkeypatch, chunk):
    monkeypatch.setattr(csv_module, "CHUNK_CELLS", 3 * chunk)
    rows = "1.0,10,0\n2.50,20,1\n01,30,0\n2.50,x,1\n1.0,10,0\nn,?,1\n"
    data = load(write("code,size,y\n" + rows), missing="drop")
    assert data.feature_names == ("code", "size=10", "size=20", "size=30", "size=x")
    assert data.x[:, 0].tolist() == [1, 2.5, 1, 2.5, 1]
    assert data.x[:, 1:].sum(axis=1).tolist() == [1.0] * 5
    assert data.n_dropped == 1


def test_words_with_underscores_are_text(write):
    data = load(write("when,y\n2020_01,0\n2020_02,1\n2020_01,1\n2020_02,0\n"))
    assert data.feature_names == ("when=2020_01", "when=2020_02")


def test_the_delimiter_that_gives_rows_of_equal_width_is_chosen(write):
    data = load(write("x, y, z;class\n1;0\n2;1\n"))
    assert data.feature_names == ("x, y, z",)
    data = load(write("weight;price\n1,5 kg;2\n3,5 kg;4\n1,5 kg;2\n"))
    assert data.feature_names == ("weight=1,5 kg", "weight=3,5 kg")


@pytest.mark.parametrize(
    ("text", "x", "y"),
    [
        ("w;price\n1;2,5\n2;-4\n", [[1], [2]], [2.5, -4]),
        ('w,y\n"2,5",0.5\n"-4,0e3",1.5\n?,1\n', [[2.5], [-4000]], [0.5, 1.5]),
        ("w;y\n0,125;1\n2,500;0,5\n", [[0.125], [2.5]], [1, 0.5]),  # thousands do not begin with 0
        ("w;y\n1,250;0,5\n2,500;1\n", [[1.25], [2.5]], [0.5, 1]),  # w has the format of y
    ],
)
def test_decimal_commas_are_read(write, text, x, y):
    data = load(write(text), missing="drop")
    assert data.x.tolist() == x
    assert data.y.tolist() == y
    assert data.feature_names == ("w",)
    again = load(write("w;x\n7,5;1\n", "new.csv"), coding=data.columns)
    assert again.x.tolist() == [[7.5]]


@pytest.mark.parametrize("cells", ["1,250 2,500 7", "1,000 5"])
def test_ambiguous_commas_are_refused(write, cells):
    rows = [f"{cell};{i % 2}" for i, cell in enumerate(cells.split() * 2)]
    path = write("\n".join(["w;y", *rows]))
    with pytest.raises(DataError, match=r"either a decimal comma or a thousands.*'w'.*decimal=','"):
        load(path)
    first = float(cells.split()[0].replace(",", "."))
    assert load(path, decimal=",").x[0, 0] == first
    assert load(path, decimal=".").x[0, 0] == 1000 * first
    assert load(path, categorical=["w"]).feature_names[0] == f"w={min(cells.split())}"


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ("1,000,000|5", [1e6, 5]),
        ("1.234,5|0,5|2.000", [1234.5, 0.5, 2000]),
        ("1,234.5|0.5|2,000", [1234.5, 0.5, 2000]),
        ("12 %|3,5 %|100%", [12, 3.5, 100]),
        ("€ 1.234,50|€ 7|-€ 3", [1234.5, 7, -3]),
        ("$1,200.50|$7.25|$-3", [1200.5, 7.25, -3]),
        ("1 234,5|1\u00a0000|1\u202f000,5", [1234.5, 1000, 1000.5]),
        ("1'234.5|12 CHF|7.0", [1234.5, 12, 7]),
    ],
)
def test_numbers_with_separators_and_units(write, cells, values):
    rows = [f"{cell};{i % 2}" for i, cell in enumerate(cells.split("|") * 2)]
    data = load(write("\n".join(["w;y", *rows])))
    assert data.feature_names == ("w",)
    assert data.x[: len(values), 0].tolist() == values


def test_new_rows_have_the_decimal_sign_of_the_training_rows(write):
    rows = "1.234,5;0\n0,5;1\n2,25;0\n7;1\n"
    data = load(write("w;y\n" + rows))
    for cells, value in {"1,234": 1.234, "1.234": 1234, "1,234.5": 1234.5, "8,25": 8.25}.items():
        again = load(write(f"w;z\n{cells};a\n", "new.csv"), coding=data.columns)
        assert again.x.tolist() == [[value]]
    # A clear number of the new table decides for the others.
    again = load(write("w;z\n1.234;a\n2.5;a\n", "new.csv"), coding=data.columns)
    assert again.x.tolist() == [[1.234], [2.5]]


def test_one_clear_number_decides_for_all_columns(write):
    data = load(write("a;b;y\n1,250;0,5;0\n2,500;1,5;1\n3,000;2,5;0\n7,125;3,5;1\n"))
    assert data.x[:, 0].tolist() == [1.25, 2.5, 3.0, 7.125]


def test_text_with_commas_is_categorical(write):
    assert load(write("w;y\na,b;0\n1,5;1\n2,5;0\nc;0\n")).feature_names[-1] == "w=c"


def test_constant_columns_are_kept(write):
    data = load(write("a,b,y\n5,same,0\n5,same,1\n5,same,1\n5,same,0\n"))
    assert data.feature_names == ("a", "b=same")
    assert data.x.tolist() == [[5, 1]] * 4


def test_boolean_and_text_targets(write):
    assert load(write("a,y\n1,True\n2,False\n")).classes == ("False", "True")
    data = load(write("a,y\n1,b\n2,a\n3,10\n4,b\n"))
    assert data.classes == ("10", "a", "b")
    assert data.y.tolist() == [2, 1, 0, 2]


@pytest.mark.parametrize("word", ["", "NA", "nan", "NaN", "?", "null", "n/a", "  ", "<NA>", "#N/A"])
def test_missing_values(write, word):
    path = write(f"size,kind,y\n1,a,0\n{word},b,1\n3,{word},0\n{word},a,1\n5,b,0\n6,b,1\n")
    data = load(path)
    assert data.n_dropped == 0
    assert data.feature_names == (
        "size", "size: no value", "kind=a", "kind=b", "kind: no value"
    )  # fmt: skip
    assert data.x.tolist() == [  # 4 is the median of the sizes
        [1, 0, 1, 0, 0], [4, 1, 0, 1, 0], [3, 0, 0, 0, 1],
        [4, 1, 1, 0, 0], [5, 0, 0, 1, 0], [6, 0, 0, 1, 0],
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"3 of 6 rows.*size: 2, kind: 1.*missing='error'"):
        load(path, missing="error")
    data = load(path, missing="drop")
    assert data.n_dropped == 3
    assert data.x.tolist() == [[1, 1, 0], [5, 0, 1], [6, 0, 1]]
    assert data.y.tolist() == [0, 0, 1]


def test_none_is_missing_among_numbers_and_a_category_among_text(write):
    path = write("size,alley,y\n1,None,0\nNone,brick,1\n3,None,0\n4,brick,1\n")
    with pytest.raises(DataError, match=r"missing values in 1 of 4 rows \(size: 1\)"):
        load(path, missing="error")
    assert load(path, missing="drop").feature_names == ("size", "alley=None", "alley=brick")


def test_missing_targets_and_no_complete_row(write):
    path = write("a,y\n1,0\n2,\n3,1\n4,0\n5,1\n")
    with pytest.raises(DataError, match="y: 1"):
        load(path, missing="error")
    for missing in ("fill", "drop"):
        data = load(path, missing=missing)
        assert (data.n_samples, data.n_dropped) == (4, 1)
        assert data.x.tolist() == [[1], [3], [4], [5]]
    with pytest.raises(DataError, match="missing values in all 2 rows"):
        load(write("a,b,y\n1,,0\n2,,1\n"), missing="drop")
    with pytest.raises(DataError, match="at least one row must have the target"):
        load(write("a,b,y\n1,1,\n2,2,\n"))
    data = load(write("a,b,y\n1,,0\n2,,1\n"))
    assert data.feature_names == ("a",)
    assert data.columns.columns[1].what == "empty"


def test_all_faults_of_a_file_are_reported_at_once(write):
    rows = [f"{i},{i},{i / 7}" for i in range(300)]
    rows[3], rows[5], rows[9] = "3,3", "inf,5,0.5", "9,-inf,?"
    rows[20:33] = ["1,2,x"] * 13
    rows[40:60] = ["1"] * 20
    with pytest.raises(DataError) as caught:
        load(write("a,a,price\n" + "\n".join(rows) + "\n"), target="price")
    names, ragged, infinite, text = str(caught.value).split("\n")
    assert "'a' more than once" in names
    assert "every row must have 3 cells" in ragged
    assert "2 cells in line 5, 1 cells in line 42, 1 cells in line 43" in ragged
    assert "and 11 more" in ragged
    assert "infinity in data row 6, column 'a', data row 10, column 'a (2)'." in infinite
    assert "text in 13 of 279 rows, 'x' in data row 21, 'x' in data row 22" in text
    assert "and 3 more" in text


def test_a_short_row_among_decimal_commas_does_not_change_the_delimiter(write):
    path = write("a;b;kind\n1,5;2;u\n2,5\n3,5;1;v\n")
    with pytest.raises(DataError, match=r"must have 3 cells.*: 1 cells in line 3\. Correct"):
        load(path)


def test_all_unknown_classes_are_reported(write):
    data = load(write("a,y\n1,u\n2,v\n"))
    with pytest.raises(DataError, match=r"'w' in data row 2, 'x' in data row 3\. Correct"):
        load(write("a,y\n1,u\n2,w\n3,x\n", "new.csv"), coding=data.columns)


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("other", ["0.5", "text"])
def test_infinity_is_refused(write, word, other):
    path = write(f"a,b,y\n1,2,{other}\n3,{word},0.5\n5,6,0.5\n")
    with pytest.raises(DataError, match="infinity in data row 2, column 'b'"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("\n \n", "empty file"),
        ("a,b,c\n", "only the header a, b, c"),
        ("a,b,a\n1,2,3\n", "'a' more than once"),
        ("a,y\n1,0\n1,2,3\n4,1\n", "3 cells in line 3"),
        ("a,y\n1,0\n\n7\n4,1\n", "1 cells in line 4"),
        ("a,b,y\n1,0\n4,1\n", "2 cells in line 2"),
        ('a,y\n1,0\n"2,1\n3,0\n', "unclosed quotation mark"),
        ("a\n1\n2\n", "only the column 'a'"),
    ],
)
def test_invalid_tables_are_refused(write, text, message):
    with pytest.raises(DataError, match=message):
        load(write(text))


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-16-be"]
)
def test_encodings_are_decided_from_the_bytes(write, encoding, name, caplog):
    sure = encoding.startswith("utf")
    text = "höhe,straße\n1,ä\n2,ß\n"
    data = load(write(text, name, encoding=encoding), task="classification")
    assert (data.feature_names, data.classes) == (("höhe",), ("ß", "ä"))
    assert ("is read as cp1252" in caplog.text) == (not sure)
    # Also after the sample that the detection of the format reads.
    late = "a,y\n" + "1,u\n2,v\n" * 20000 + "1,ö\n"
    assert load(write(late, name, encoding=encoding)).classes == ("u", "v", "ö")


def test_another_encoding_can_be_named(write):
    path = write("a,y\n1,ж\n2,ц\n", encoding="koi8-r")
    assert load(path, encoding="koi8-r").classes == ("ж", "ц")
    with pytest.raises(ArgumentError, match=r"encoding must be the name of an encoding.*'klingon'"):
        load(path, encoding="klingon")
    with pytest.raises(DataError, match=r"must have a known encoding.*'utf-8' codec.*encoding="):
        load(path, encoding="utf-8")
    with pytest.raises(ArgumentError, match="encoding has no effect for the built-in set"):
        load("iris", encoding="utf-8")


def test_damaged_gzip_is_refused(write):
    path = write(PLAIN, "table.csv.gz")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load(path)


def test_an_uncompressed_table_named_gz_is_read(write):
    path = write(PLAIN, "table.csv.gz")
    whole = load(path)
    path.write_bytes(PLAIN.encode())
    np.testing.assert_array_equal(load(path).x, whole.x)


LONG = [1234567890123456789, 1234567890123456790, 1834567890123456791]


@pytest.mark.parametrize("form", ["csv", "parquet", "npz", "dict"])
def test_labels_keep_all_their_digits(tmp_path, form):
    y, path = np.array(LONG * 30), tmp_path / f"ids.{form}"
    x = np.arange(180.0).reshape(90, 2)
    if form == "npz":
        np.savez(path, x=x, y=y)
    elif form == "csv":
        rows = "".join(f"{a},{b},{c}\n" for (a, b), c in zip(x, y, strict=True))
        path.write_text("a,b,account\n" + rows, encoding="utf-8")
    elif form == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"a": x[:, 0], "b": x[:, 1], "account": y}), path)
    if form == "dict":
        path = {"a": x[:, 0].tolist(), "b": x[:, 1].tolist(), "account": y.tolist()}
    data = load(path)
    assert data.classes == tuple(LONG)
    assert data.y.tolist() == [0, 1, 2] * 30
    if form != "npz":  # also with a known coding, as in evaluation
        again = load(path, coding=data.columns)
        assert again.y.tolist() == data.y.tolist()


def test_rounded_long_numbers_log_a_warning(write, caplog):
    rows = "".join(f"{LONG[0] + 1000 * i},{i / 3}\n" for i in range(30))
    data = load(write("account,size\n" + rows, "a.csv"))
    assert data.x[:, 0].tolist() == [float(LONG[0] + 1000 * i) for i in range(30)]
    assert "column 'account' has whole numbers above 2^53" in caplog.text
    rows = "".join(f"{i / 3},{LONG[0] + 1000 * i}\n" for i in range(130))
    data = load(write("size,account\n" + rows, "b.csv"))
    assert (data.task, data.y[1]) == ("regression", float(LONG[0] + 1000))
    assert "targets above 2^53 are rounded" in caplog.text


def test_long_numbers_with_missing_values_or_fractions_stay_numbers(write):
    data = load(write(f"id,y\n{LONG[0]},0.5\n,1.5\n2.5,3.5\n", "a.csv"), missing="drop")
    assert data.x.ravel().tolist() == [float(LONG[0]), 2.5]


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("Export of May\n\na,b,kind\n" + "1,2,u\n3,4\n" * 9, "is a title, remove it"),
        ("a#b\n1#2\n3#4\n", "pandas.read_csv"),
    ],
)
def test_a_message_names_the_cure(write, text, cure):
    with pytest.raises(DataError, match=re.escape(cure)):
        load(write(text, "table.csv"))


def test_a_source_that_is_no_path_is_refused_with_the_cure():
    for source in (io.StringIO("a,b\n1,2\n"), np.eye(3)):
        with pytest.raises(ArgumentError, match=r"Received: .*Pass arrays to"):
            load(source)


def test_text_that_differs_in_almost_every_row_is_left_out(write):
    rows = "".join(f"{i % 7},name-{i},called by the name {i},{i % 2}\n" for i in range(101))
    data = load(write("a,who,note,y\n" + rows))
    assert data.feature_names == ("a",)
    _, who, note = data.columns.columns
    assert (who.kind, who.what, note.what) == ("left out", "id", "text")
    assert who.why == "101 different values in 101 rows"
    assert data.ids["who"][:2] == ["name-0", "name-1"]
    assert data.rows([3, 1]).ids["who"].tolist() == ["name-3", "name-1"]
    again = load(write("who,a,y\nx,3,1\n", "new.csv"), coding=data.columns)
    assert (again.x.tolist(), again.ids) == ([[3]], {"who": ["x"]})
    assert load(write("a\n3\n", "new.csv"), coding=data.columns).ids == {}


def test_whole_numbers_are_ids_by_their_name(write):
    rows = "".join(f"{1000 + 3 * i},{2000 + 7 * i},{i % 2}\n" for i in range(40))
    for name in ("id", "customer_id", "ID cliente", "Unnamed: 0", "row_id"):
        data = load(write(f"{name},paid,y\n{rows}"))
        assert data.feature_names == ("paid",)
        assert list(data.ids) == [name]
    for name in ("paid", "width", "valid", "idle"):
        assert len(load(write(f"{name},due,y\n{rows}")).feature_names) == 2


def test_levels_beyond_the_most_frequent_are_one(write, caplog):
    rows = "".join(f"zip-{i * i % 977},{i % 2}\n" for i in range(3000))
    data = load(write("zip,y\n" + rows))
    zips = data.columns.columns[0]
    assert (len(zips.levels), zips.has_other) == (100, True)
    assert data.feature_names[-2:] == ("zip: other", "zip: share of 1")
    assert (data.x[:, :-1].sum(axis=1) == 1).all()
    again = load(write("zip\nzip-new\n", "new.csv"), coding=data.columns)
    assert again.x[0].tolist() == [0.0] * 100 + [1.0, 0.5]


def test_rare_levels_are_one_only_among_many(write):
    few = "".join(f"{'common' if i else 'rare'},{i % 2}\n" for i in range(30))
    assert load(write("kind,y\n" + few)).feature_names == ("kind=common", "kind=rare")
    many = "".join(f"l{i % 25 if i < 100 else i},{i % 2}\n" for i in range(110))
    assert len(load(write("kind,y\n" + many)).feature_names) == 26


def test_a_column_of_numbers_with_a_word(write, caplog):
    rows = ["a,b,y", *(f"{i % 7},{i % 5},{i % 2}" for i in range(600))]
    rows[500] = "oops,3,1"
    path = write("\n".join(rows) + "\n")
    data = load(path)
    assert data.feature_names == ("a", "a: no value", "b")
    assert data.x[499].tolist() == [3, 1, 3]
    assert "table.csv: column 'a' has no number in 1 of 600 rows, such as 'oops' in data row 500" \
        in caplog.text  # fmt: skip
    assert load(path, categorical=["a"]).n_features == 9
    # In the target it may be a class, or a mistake.
    rows = ["a,y", *(f"{i},{i / 8}" for i in range(100)), "7,unknown"]
    path = write("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"column 'y'.*'unknown' in data row 101.*task='classif"):
        load(path)
    assert load(path, task="classification").n_classes == 101


def test_a_column_of_numbers_with_many_words_becomes_categories(write):
    path = write("floor,y\n1,0\n2,1\n3,0\n1,1\nG,1\n2,0\n")
    assert load(path).feature_names == ("floor=1", "floor=2", "floor=3", "floor=G")
    assert load(path, column={"floor": "number"}).feature_names == ("floor", "floor: no value")
    assert load(write("size,y\nS,0\nM,1\n38,0\nL,1\n")).n_features == 4


@pytest.mark.parametrize(
    ("dates", "order", "first"),
    [
        ("2024-03-01 2024-03-05", "ymd", -4),
        ("2024/3/1 2024/3/15", "ymd", -14),
        ("13.03.2024 5.3.2024", "dmy", 0),
        ("03/13/2024 03/05/2024", "mdy", 0),
        ("01/02/2024 03/02/2024", "dmy", -2),
        ("2024-03-01T06:00:00Z 2024-03-01T18:00:00Z", "ymd", -0.5),
    ],
)
def test_dates(write, dates, order, first):
    rows = "".join(f"{cell},{i % 2}\n" for i, cell in enumerate(dates.split() * 2))
    data = load(write("when,y\n" + rows))
    column = data.columns.columns[0]
    assert (column.kind, column.order) == ("date", order)
    assert data.feature_names[0] == "when: days"
    assert data.x[0, 0] == first
    assert column.has_time == ("T" in dates)
    np.testing.assert_allclose(data.x[:, 1] ** 2 + data.x[:, 2] ** 2, 1.0)


def test_dates_of_new_rows(write, caplog):
    rows = "".join(f"2024-03-{1 + i % 28:02d},{i % 2}\n" for i in range(60))
    data = load(write("when,y\n" + rows))
    new = write("when\n2024-04-04\n\n,\nsoon\n2024-02-30\n".replace("\n\n,", "\n?"), "new.csv")
    x = load(new, coding=data.columns).x
    assert x[0, 0] == 7  # days after the last one
    assert (x[1:] == x[1]).all()
    assert -28 < x[1, 0] < 0
    assert "column 'when' has no date in 2 of 4 rows, such as 'soon' in data row 3" in caplog.text
    assert "no value in 1 of 4 rows" in caplog.text


def test_kinds_can_be_chosen(write):
    path = write("a,b,c,y\n1,2024-01-01,5,0\n2,2024-01-02,6,1\n3,2024-01-01,5,0\n4,x,6,1\n")
    names = load(path, column=["b=id", "c=category"]).feature_names
    assert names == ("a", "c=5", "c=6")
    assert load(path, column={"a": "id", "b": "category"}).ids == {"a": ["1", "2", "3", "4"]}
    with pytest.raises(
        DataError, match=r"column 'b' cannot be of the kind 'date'.*column='b=date'"
    ):
        load(path, column={"b": "date"})
    with pytest.raises(ArgumentError, match=r"column must be NAME=KIND.*'a=numbr'.*'number'"):
        load(path, column=["a=numbr"])
    with pytest.raises(DataError, match=r"column must be columns of the table.*'z'"):
        load(path, column=["z=number"])
    with pytest.raises(ArgumentError, match="a list of NAME=KIND"):
        load(path, column="a=number")
    with pytest.raises(
        DataError, match=r"that becomes a feature.*'a': as given.*column='a=category'"
    ):
        load(path, column=["a=id", "b=id", "c=id"])


@pytest.mark.parametrize("column", ["zip", 1, "1", -3])
def test_names_that_look_like_numbers(write, column):
    path = write("a,zip,b,y\n1,01067,5,0\n2,80331,6,1\n3,01067,7,1\n4,80331,8,0\n")
    data = load(path, categorical=[column])
    assert data.feature_names == ("a", "zip=01067", "zip=80331", "b")
    assert data.x.tolist()[:2] == [[1, 1, 0, 5], [2, 0, 1, 6]]
    again = load(write("zip,b,a\n80331,5,6\n", "new.csv"), coding=data.columns)
    assert again.x.tolist() == [[6, 0, 1, 5]]
    rest = load(path, categorical=[column], ignore=["a"])
    assert rest.feature_names == ("zip=01067", "zip=80331", "b")


def test_ignored_columns(write):
    path = write("id,a,b,y,note\n7,1,5,0,?\n8,2,6,1,x\n9,3,7,1,\n6,4,8,0,z\n")
    data = load(path, ignore=["note", 0])
    assert (data.feature_names, data.columns.target, data.n_dropped) == (("a", "b"), "y", 0)
    assert load(path, ignore=["note", "id"], target=3).columns.target == "y"
    assert load(write("b,a\n1,2\n", "new.csv"), coding=data.columns).x.tolist() == [[2, 1]]
    with pytest.raises(DataError, match=r"ignore must be columns.*'not'.*Did you mean 'note'"):
        load(path, ignore=["not"])
    with pytest.raises(DataError, match=r"categorical must be columns of the table. Received: 5"):
        load(path, categorical=[5])
    with pytest.raises(ArgumentError, match="ignore must be a list of columns"):
        load(path, ignore="note")
    with pytest.raises(ArgumentError, match="ignore needs a header"):
        load(write("1,2,0\n3,4,1\n"), ignore=[0])
    with pytest.raises(ArgumentError, match="ignore has no effect for the built-in set 'iris'"):
        load("iris", ignore=["note"])
    with pytest.raises(ArgumentError, match="categorical has no effect for a file read"):
        load(path, categorical=["a"], coding=data.columns)


def test_utf8_and_quoted_line_breaks(write):
    data = load(write('größe,"the\nclass"\n1,"a\nb"\n2,ü\n'))
    assert data.feature_names == ("größe",)
    assert data.classes == ("a\nb", "ü")
    assert data.columns.target == "the\nclass"


def test_a_quoted_header_with_line_break_before_numbers(write):
    data = load(write('a,"the\nclass"\n1,0\n2,1\n3,0\n4,1\n'))
    assert data.x.tolist() == [[1], [2], [3], [4]]


# ---------------------------------------------------------------- layouts of other programs


def test_long_first_lines_and_cells(write):
    """20,000 genes, and a note of 150,000 characters."""
    names = [f"gene_{i}" for i in range(20_000)]
    rows = [",".join(f"{(i * j) % 97}.5" for j in range(20_000)) for i in range(3)]
    text = "\n".join(
        [",".join([*names, "kind"]), *(f"{row},{i % 2}" for i, row in enumerate(rows))]
    )
    assert load(write(text)).x.shape == (3, 20_000)
    note = ",".join(["word"] * 30_000)
    rows = "".join(f"{i % 3},short,{'ab'[i % 2]}\n" for i in range(30))
    data = load(write(f'stars,note,kind\n1,"{note}",a\n{rows}'), ignore=["note"])
    assert data.x.shape == (31, 1)


@pytest.mark.parametrize("delimiter", [";", ",", "|", "\t"])
@pytest.mark.parametrize(
    "line", ["sep={0}", "SEP={0}\r", "Export of 2024-05-01\n", '"A title"', ""]
)
def test_first_lines_before_the_table(write, delimiter, line):
    rows = ["a{0}b{0}kind", *(f"{i}{{0}}{i / 2}{{0}}{'uv'[i % 2]}" for i in range(9))]
    data = load(write("\n".join([line, *rows]).format(delimiter)))
    assert (data.feature_names, data.n_samples) == (("a", "b"), 9)
    assert data.x[3].tolist() == [3, 1.5]
    new = write("\n".join([line, "b{0}a", "7{0}8", "9{0}1"]).format(delimiter), "new.csv")
    assert load(new, coding=data.columns).x.tolist() == [[8, 7], [1, 9]]


@pytest.mark.parametrize("titles", ["Export of May\n", "Export\nby me\n\n", "Export\n\n\n"])
@pytest.mark.parametrize("delimiter", [";", ","])
@pytest.mark.parametrize("header", ["", "a{0}b{0}kind\n"])
def test_titles_above_a_table(write, titles, delimiter, header):
    rows = "".join(f"{i}{{0}}{i / 2}{{0}}{i % 2}\n" for i in range(9))
    data = load(write(titles + (header + rows).format(delimiter)))
    assert data.x[3].tolist() == [3, 1.5]
    assert (data.n_samples, data.columns.has_header) == (9, bool(header))
    new = load(write(titles + (header + rows).format(delimiter), "new.csv"), coding=data.columns)
    np.testing.assert_array_equal(new.x, data.x)


@pytest.mark.parametrize(
    ("limit", "text", "message"),
    [
        ("MOST_COLUMNS", "1,2,3,4,5,6\n", "at most 5 columns. Received: 6 in the first line"),
        ("MOST_CHARACTERS", "a,b\n1,2\n", "a first line of more than 2 characters"),
    ],
)
def test_very_long_first_lines_are_refused(write, monkeypatch, limit, text, message):
    monkeypatch.setattr(f"nnbackend.data.csv_layout.{limit}", 5)
    with pytest.raises(DataError, match=message):
        load(write(text))


def test_kaggle_layout_of_mnist(write):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 784)), np.arange(40) % 10
    names = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    rows = [",".join(map(str, [label, *row])) for label, row in zip(labels, pixels, strict=True)]
    data = load(write("\n".join([names, *rows]), "train.csv"))
    assert (data.columns.target, data.classes) == ("label", tuple(range(10)))
    np.testing.assert_array_equal(data.x, pixels)
    names, *rows = (line.split(",", 1)[1] for line in [names, *rows])
    new = load(write("\n".join([names, *rows]), "test.csv"), coding=data.columns)
    assert new.y is None
    np.testing.assert_array_equal(new.x, pixels)


def test_columns_separated_by_blanks(write):
    rows = [f" {i / 3:.4f}  {i:6.2f}   {i * 1.5:.1f}" for i in range(1, 9)]
    data = load(write("\n".join(rows), "housing.data"))
    assert data.x[0].tolist() == [0.3333, 1.0]
    assert data.y[:2].tolist() == [1.5, 3.0]
    rows = ["x   y  kind", *(f"{i}  {i / 2}  {'ab'[i % 2]}" for i in range(9))]
    data = load(write("\n".join(rows)))
    assert (data.feature_names, data.classes) == (("x", "y"), ("a", "b"))


def test_an_index_of_pandas_is_left_out(write):
    rows = "".join(f"{i * 7 % 60},{i % 5},{'ab'[i % 2]}\n" for i in range(60))
    data = load(write(",a,kind\n" + rows))
    assert (data.feature_names, list(data.ids)) == (("a",), ["Unnamed: 0"])
    assert load(write("a\n3\n", "new.csv"), coding=data.columns).x.tolist() == [[3]]
    pandas = pytest.importorskip("pandas", reason="pandas makes the file: pip install pandas")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: nnbackend[parquet]")
    frame = pandas.DataFrame({"a": range(60), "kind": ["a", "b"] * 30}).sample(frac=1.0)
    path = write("", "frame.parquet")
    frame.to_parquet(path)
    data = load(path)
    assert (data.feature_names, data.columns.target) == (("a",), "kind")


@pytest.mark.parametrize("cells", ["${:,.2f}", "{:.1f}%", "{:.2f} EUR"])
def test_targets_with_units_are_numbers(write, cells):
    rows = "".join(f'{i},"{cells.format(1234.5 + i)}"\n' for i in range(40))
    data = load(write("size,price\n" + rows))
    assert (data.task, data.y[1]) == ("regression", 1235.5)


def test_the_default_target(write):
    rows = "".join(f"{i % 2},{i},{i + 1}\n" for i in range(9))
    for header, target in {
        "label,pixel0,pixel1": "label", "Class,a,b": "Class", "y,a,b": "y", "a,b,c": "c",
        "label,a,y": "y", "kind,a,label": "label",
    }.items():  # fmt: skip
        data = load(write(f"{header}\n{rows}"), task="classification")
        assert data.columns.target == target


def test_a_target_of_text_that_differs_in_most_rows_is_refused(write):
    rows = "".join(f"{i % 3},name {i % 28}\n" for i in range(40))
    with pytest.raises(DataError, match=r"classes must recur.*28 different values in 40 rows"):
        load(write("size,when\n" + rows))
    assert load(write("size,when\n" + rows), task="classification").n_classes == 28


def test_a_target_of_dates_is_refused(write):
    rows = "".join(f"{i % 3},2024-01-{1 + i % 7:02d}\n" for i in range(40))
    with pytest.raises(DataError, match=r"Received: dates such as '2024-01-01' in column 'when'"):
        load(write("size,when\n" + rows))
    assert load(write("size,when\n" + rows), column={"when": "category"}).n_classes == 7
    assert load(write("size,when\n" + rows), task="classification").n_classes == 7


# ---------------------------------------------------------------- reading again with a coding

TRAIN = "colour,size,open,kind\nred,1,yes,a\nblue,2,no,b\nred,3,no,a\nblue,4,yes,b\n"


@pytest.fixture
def coding(write):
    coding = load(write(TRAIN, "train.csv")).columns
    return ColumnCoding.from_dict(json.loads(json.dumps(coding.to_dict())))


def test_coding_round_trip_is_equal(write, coding):
    assert coding == load(write(TRAIN)).columns
    assert coding.feature_names == ("colour=blue", "colour=red", "size", "open")
    stored = coding.to_dict()
    for key in stored:
        with pytest.raises(DataError, match="stored column coding"):
            ColumnCoding.from_dict({k: v for k, v in stored.items() if k != key})


ODD = [None, [], {}, "x", "", 3, -1, 1.5, True, [[]], ["a"], [1], 10**18, "regression", [None]]


def test_an_untrusted_coding_works_or_is_refused(write, coding):
    """One or two entries of other types: a DataError, or a data set."""
    plain, path, refused = coding.to_dict(), write(TRAIN), 0
    entries = [(None, name) for name in plain] + [(0, name) for name in plain["columns"][0]]
    for (first, second), one, other in product(combinations(entries, 2), ODD, ODD):
        stored = json.loads(json.dumps(plain))
        for (column, name), value in ((second, other), (first, one)):
            (stored if column is None else stored["columns"][column])[name] = value
        try:
            made = ColumnCoding.from_dict(stored)
        except DataError:
            refused += 1
            continue
        try:
            load(path, coding=made)
        except DataError:
            refused += 1
    assert refused > 3_000
    for odd in ODD:
        with pytest.raises(DataError):
            ColumnCoding.from_dict(odd)


def test_coding_matches_by_name_and_ignores_other_columns(write, coding):
    data = load(write("kind,extra,size,open,colour\nb,?,9,1,red\n"), coding=coding)
    assert data.x.tolist() == [[0, 1, 9, 1]]
    assert data.feature_names == coding.feature_names
    assert (data.task, data.classes) == ("classification", ("a", "b"))
    assert data.y.tolist() == [1]
    assert data.columns == coding


def test_coding_without_target(write, coding):
    data = load(write("size,open,colour\n9,no,red\n8,yes,blue\n"), coding=coding)
    assert data.y is None
    assert data.x.tolist() == [[0, 1, 9, 0], [1, 0, 8, 1]]
    assert data.task == "classification"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,open\n1,no\n", r"no column 'colour'"),
        ("size,open,color\n1,no,red\n", r"no column 'colour'.*Did you mean 'color'\?"),
        ("colour,size,open\nred,inf,no\n", "infinity in data row 1"),
        (
            "colour,size,open,kind\nred,1,no,a\nred,1,no,z\n",
            "'a', 'b'. Received: 'z' in data row 2",
        ),
        ("red,1,no,a\n", "no column 'colour'"),
    ],
)
def test_coding_refuses_what_does_not_match(write, coding, text, message):
    with pytest.raises(DataError, match=message):
        load(write(text), coding=coding)


@pytest.mark.parametrize(
    ("row", "x", "note"),
    [
        ("Red,1,no", [0, 0, 1, 0], "'colour' has an unknown level in 1 of 2 rows, such as 'Red'"),
        (",1,no", [0, 0, 1, 0], "'colour' has no value in 1 of 2 rows"),
        ("red,big,no", [0, 1, 2.5, 0], "'size' has no number in 1 of 2 rows, such as 'big'"),
        ("red,,no", [0, 1, 2.5, 0], "'size' has no value in 1 of 2 rows"),
        ("red,1,maybe", [0, 1, 1, 0.5], "'open' has neither yes nor no in 1 of 2 rows"),
        ("red,1,", [0, 1, 1, 0.5], "'open' has no value in 1 of 2 rows"),
    ],
)  # fmt: skip
def test_unusual_cells_of_new_rows_are_read_and_noted(write, coding, caplog, row, x, note):
    data = load(write(f"colour,size,open\nblue,2,yes\n{row}\n"), coding=coding)
    assert data.x.tolist() == [[1, 0, 2, 1], x]
    (record,) = caplog.messages
    assert note in record
    assert "in data row 2" in record


def test_coding_names_the_first_row_with_an_unknown_class(write, coding):
    text = "colour,size,open,kind\nred,1,no,a\nred,1,no,z\nred,1,no,m\n"
    with pytest.raises(DataError, match="'z' in data row 2"):
        load(write(text), coding=coding)


def test_coding_drops_rows_and_keeps_the_row_numbers_of_the_file(write, coding, caplog):
    text = "colour,size,open\nred,1,no\nred,,no\nblue,3,yes\n"
    data = load(write(text), coding=coding, missing="drop")
    assert (data.n_samples, data.n_dropped) == (2, 1)
    load(write(text.replace("blue", "green")), coding=coding, missing="drop")
    assert "'green' in data row 3" in caplog.text


def test_coding_of_categories_that_look_like_numbers(write):
    coding = load(write("a,y\n01,01\n2.0,x\nb,01\n01,x\n")).columns
    data = load(write("a,y\n01,01\n2.0,01\n"), coding=coding)
    assert data.x.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert data.y.tolist() == [0, 0]


def test_coding_of_whole_number_classes(write):
    coding = load(write("a,y\n1,3\n2,7\n4,3\n1,7\n")).columns
    assert load(write("a,y\n1,7\n"), coding=coding).y.tolist() == [1]
    for wrong in ("5", "3.5", "x"):
        with pytest.raises(DataError, match=f"3, 7. Received: '?{wrong}.*in data row 2"):
            load(write(f"a,y\n1,7\n2,{wrong}\n"), coding=coding)


def test_coding_of_a_regression(write):
    coding = load(write("a,y\n1,3.5\n2,7\n")).columns
    # Few whole numbers: it stays a regression.
    data = load(write("a,y\n1,7\n1,7\n"), coding=coding)
    assert data.task == "regression"
    assert data.y.tolist() == [7.0, 7.0]


def test_coding_without_header(write):
    path = write("x,1,0.5\ny,2,0.5\nx,3,1.5\n")
    coding = load(path, target=1, task="regression").columns
    assert not coding.has_header
    # Read again, with and without the target; the first row is always data.
    assert load(path, coding=coding).y.tolist() == [1, 2, 3]
    assert load(write("y,7.5\n"), coding=coding).x.tolist() == [[0, 1, 7.5]]
    assert load(write("y,7.5\n"), coding=coding).y is None
    with pytest.raises(DataError, match=r"must have 2 columns, or 3.*Received: 4"):
        load(write("y,7.5,1,2\n"), coding=coding)


def test_coding_without_header_and_number_like_categories(write):
    coding = load(write("0.5,1\n0.5,2\n0.5,x\n1.5,1\n"), target=0, header=False).columns
    assert load(write("1\n2\n"), coding=coding).x.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_coding_excludes_other_options(write, coding):
    path = write(TRAIN)
    for option in ({"target": "kind"}, {"header": True}, {"task": "regression"}):
        with pytest.raises(ArgumentError, match=next(iter(option))):
            load(path, coding=coding, **option)
    with pytest.raises(ArgumentError, match="coding"):
        load("iris", coding=coding)


# ---------------------------------------------------------------- files of other programs


@pytest.fixture
def frame():
    pandas = pytest.importorskip("pandas", reason="pandas makes the file: pip install pandas")
    rng = np.random.Generator(np.random.Philox(5))
    return pandas.DataFrame(
        {
            "weight": rng.standard_normal(60) * 1e-7,
            "count": rng.integers(-5, 5, 60),
            "single": rng.standard_normal(60).astype(np.float32),
            "colour": rng.choice(["red", "green", "blue, pale"], 60),
            "open": rng.random(60) < 0.5,
            "kind": rng.choice(["ham", "spam"], 60),
        }
    )


def check_against(data, frame):
    assert data.feature_names == (
        "weight",
        "count",
        "single",
        "colour=blue, pale",
        "colour=green",
        "colour=red",
        "open",
    )
    for feature in ("weight", "count", "open"):
        at = data.feature_names.index(feature)
        assert data.x[:, at].tolist() == frame[feature].astype(float).tolist()
    for colour in ("red", "green", "blue, pale"):
        at = data.feature_names.index(f"colour={colour}")
        assert data.x[:, at].tolist() == (frame["colour"] == colour).astype(float).tolist()
    assert [data.classes[code] for code in data.y] == frame["kind"].tolist()


@pytest.mark.parametrize("options", [{}, {"sep": ";"}, {"sep": "\t"}, {"quoting": 2}])
@pytest.mark.parametrize("name", ["frame.csv", "frame.csv.gz"])
def test_csv_from_pandas(tmp_path, frame, options, name):
    frame.to_csv(tmp_path / name, index=False, **options)
    check_against(load(tmp_path / name), frame)
    frame.to_csv(tmp_path / name, **options)
    data = load(tmp_path / name)
    check_against(data, frame)
    assert data.ids["Unnamed: 0"] == [str(i) for i in range(len(frame))]


@pytest.fixture
def parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: nnbackend[parquet]")
    writer = pytest.importorskip("pyarrow.parquet")

    def parquet(columns, name="table.parquet"):
        table = columns if isinstance(columns, arrow.Table) else arrow.table(columns)
        writer.write_table(table, tmp_path / name)
        return tmp_path / name

    return parquet


def test_parquet_from_pandas(tmp_path, frame, parquet):
    frame["colour"] = frame["colour"].astype("category")
    frame.to_parquet(tmp_path / "frame.parquet", index=False)
    data = load(tmp_path / "frame.parquet")
    check_against(data, frame)
    # The same table as text, read with the coding of the Parquet file.
    frame.drop(columns="kind").to_csv(tmp_path / "frame.csv", index=False)
    again = load(tmp_path / "frame.csv", coding=data.columns)
    np.testing.assert_allclose(again.x, data.x, rtol=1e-6)


def test_parquet_target_missing_values_and_coding(parquet):
    path = parquet({"a": [1, None, 3, 4], "b": ["x", "y", None, "y"], "y": [0.5, 1.5, 2.5, 3.5]})
    with pytest.raises(DataError, match=r"missing values in 2 of 4 rows .a: 1, b: 1."):
        load(path, missing="error")
    assert load(path).x.tolist() == [
        [1, 0, 1, 0, 0], [3, 1, 0, 1, 0], [3, 0, 0, 0, 1], [4, 0, 0, 1, 0]
    ]  # fmt: skip
    data = load(path, missing="drop")
    assert data.x.tolist() == [[1, 1, 0], [4, 0, 1]]
    assert (data.task, data.n_dropped) == ("regression", 2)
    assert load(path, target="a", missing="drop", task="regression").columns.target == "a"
    again = load(parquet({"b": ["y"], "a": ["7"]}), coding=data.columns)
    assert again.x.tolist() == [[7, 0, 1]]


def test_parquet_types(parquet, caplog):
    arrow = pytest.importorskip("pyarrow")
    decimal = arrow.array([1, 2, 3, 4]).cast(arrow.decimal128(21, 2))
    flags = arrow.array([True, False, True, False])
    columns = {"d": decimal, "f16": np.arange(4, dtype=np.float16)}
    columns["coded"] = arrow.array([5, 7, 5, None]).dictionary_encode()
    data = load(parquet({**columns, "y": flags}), missing="drop")
    assert data.x.tolist() == [[1, 0, 5], [2, 1, 7], [3, 2, 5]]
    assert data.classes == ("False", "True")
    when = arrow.array([0, 1, 2, 3], type=arrow.timestamp("s"))
    tags = arrow.array([["a"], [], None, ["b"]])
    data = load(parquet({"when": when, "tags": tags, "y": flags}))
    assert [column.kind for column in data.columns.columns] == ["date", "left out"]
    assert "column 'tags' is of type list<" in caplog.text
    again = parquet({"when": when, "tags": tags}, "new.parquet")
    assert load(again, coding=data.columns).x.tolist() == data.x.tolist()
    with pytest.raises(DataError, match="infinity in data row 2, column 'a'"):
        load(parquet({"a": [1.0, np.inf], "y": [0.5, 1.5]}))


def test_parquet_categories_stored_as_numbers(write, parquet):
    coding = load(write("a,y\n1,0\n2,1\nb,0\n1,1\n")).columns
    assert load(parquet({"a": [2, 1]}), coding=coding).x.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_parquet_names_that_look_like_numbers(parquet):
    path = parquet({"a": [1.5, 2.5, None, 3.5], "zip": [7, 8, 7, 8], "id": [1, 2, 3, 4],
                    "y": [0, 1, 0, 1]})  # fmt: skip
    data = load(path, categorical=["zip"], ignore=["id"], missing="drop")
    assert data.feature_names == ("a", "zip=7", "zip=8")
    assert data.x.tolist() == [[1.5, 1, 0], [2.5, 0, 1], [3.5, 0, 1]]


def test_invalid_parquet_is_refused(tmp_path, parquet):
    path = parquet({"a": [1, 2, 1, 2], "y": [0, 1, 0, 1]})
    whole = path.read_bytes()
    for length in (0, 3, 4, 8, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="complete Parquet file"):
            load(path)
    path = parquet({"a": ["zz", "b", "zz", "b"], "y": [0, 1, 0, 1]})
    path.write_bytes(path.read_bytes().replace(b"zz", b"\xf8z"))  # invalid UTF-8
    with pytest.raises(DataError, match="complete Parquet file"):
        load(path)
    with pytest.raises(DataError, match="0 rows"):
        load(parquet({"a": [], "y": []}))
    arrow = pytest.importorskip("pyarrow")
    double = arrow.table([[1], [2]], names=["a", "a"])
    with pytest.raises(DataError, match="'a' more than once"):
        load(parquet(double))
    with pytest.raises(ArgumentError, match="header"):
        load(parquet({"a": [1], "y": [0]}), header=True)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'nnbackend\[parquet\]'"):
        load(tmp_path / "t.parquet")
