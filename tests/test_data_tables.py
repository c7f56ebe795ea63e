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
        "categorical",
        "numeric",
        "boolean",
        "boolean",
    ]


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_a_column_with_late_text_is_text_from_the_first_row(write, monkeypatch, chunk):
    monkeypatch.setattr(csv_module, "CHUNK_CELLS", 3 * chunk)
    rows = "1.0,10,0\n2.50,20,1\n01,30,0\n2.50,x,1\n1.0,10,0\nn,?,1\n"
    data = load(write("code,size,y\n" + rows), missing="drop")
    assert data.feature_names == (
        "code=01",
        "code=1.0",
        "code=2.50",
        "size=10",
        "size=20",
        "size=30",
        "size=x",
    )
    assert data.x.sum(axis=1).tolist() == [2.0] * 5
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


@pytest.mark.parametrize("cells", ["1,250 2,500 7", "1,000,000 5", "1.234,5 0,5", "1,234.5 0.5"])
def test_ambiguous_commas_are_refused(write, cells):
    rows = [f"{cell};{i % 2}" for i, cell in enumerate(cells.split() * 2)]
    path = write("\n".join(["w;y", *rows]))
    with pytest.raises(DataError, match=r"must be a decimal comma.*column 'w'.*categorical="):
        load(path)
    first = sorted(set(cells.split()))[0]
    assert load(path, categorical=["w"]).feature_names[0] == f"w={first}"


def test_text_with_commas_is_categorical(write):
    assert load(write("w;y\na,b;0\n1,5;1\n2,5;0\nc;0\n")).feature_names[-1] == "w=c"


def test_text_of_many_values_logs_a_warning(write, caplog):
    path = write("when,y\n" + "".join(f"2024-03-{1 + i % 28:02d},{i % 2}\n" for i in range(60)))
    assert load(path).n_features == 28
    assert "'when' is text, such as '2024-03-01'; its 28 different values become" in caplog.text
    caplog.clear()
    assert load(path, categorical=["when"]).n_features == 28
    assert not caplog.text


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
    with pytest.raises(DataError, match=r"3 of 6 rows.*size: 2, kind: 1.*missing='drop'"):
        load(path)
    data = load(path, missing="drop")
    assert data.n_dropped == 3
    assert data.x.tolist() == [[1, 1, 0], [5, 0, 1], [6, 0, 1]]
    assert data.y.tolist() == [0, 0, 1]


def test_none_is_missing_among_numbers_and_a_category_among_text(write):
    path = write("size,alley,y\n1,None,0\nNone,brick,1\n3,None,0\n4,brick,1\n")
    with pytest.raises(DataError, match=r"missing values in 1 of 4 rows \(size: 1\)"):
        load(path)
    assert load(path, missing="drop").feature_names == ("size", "alley=None", "alley=brick")


def test_missing_targets_and_no_complete_row(write):
    path = write("a,y\n1,0\n2,\n3,1\n4,0\n5,1\n")
    with pytest.raises(DataError, match="y: 1"):
        load(path)
    assert load(path, missing="drop").n_samples == 4
    with pytest.raises(DataError, match="missing values in all 2 rows"):
        load(write("a,b,y\n1,,0\n2,,1\n"), missing="drop")


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
        (",a,y\n0,1,2\n1,3,4\n", r"no name for column 0.*index=False"),
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


@pytest.mark.parametrize(
    ("encoding", "byte"), [("latin-1", "0xf6"), ("utf-16", "0xff"), ("cp1252", "0xf6")]
)
def test_wrong_encodings_are_refused(write, encoding, byte):
    with pytest.raises(DataError, match=f"must be UTF-8. Received: the invalid byte {byte}"):
        load(write("höhe,y\n1,0\n2,1\n", encoding=encoding))
    # Also after the sample that the detection reads.
    late = "a,y\n" + "1,0\n2,1\n" * 20000 + "ö,1\n"
    with pytest.raises(DataError, match="must be UTF-8"):
        load(write(late, encoding=encoding))


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


@pytest.mark.parametrize("form", ["csv", "parquet", "npz"])
def test_labels_keep_all_their_digits(tmp_path, form):
    y, path = np.array(LONG * 30), tmp_path / f"ids.{form}"
    x = np.arange(180.0).reshape(90, 2)
    if form == "npz":
        np.savez(path, x=x, y=y)
    elif form == "csv":
        rows = "".join(f"{a},{b},{c}\n" for (a, b), c in zip(x, y, strict=True))
        path.write_text("a,b,account\n" + rows, encoding="utf-8")
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"a": x[:, 0], "b": x[:, 1], "account": y}), path)
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
        ("sep=;\na;b;kind\n" + "1;2;u\n3;4;v\n" * 9, "Remove the first line"),
        ("Export of May\n\na,b,kind\n" + "1,2,u\n3,4,v\n" * 9, "is a title, remove it"),
        (" 1.5  2.5   3.5\n 2.5  3.5   4.5\n", "pandas.read_csv"),
        ('a,note,y\n1,"' + "word," * 40_000 + '",2\n', "at most 131,072 characters"),
    ],
)
def test_a_message_names_the_cure(write, text, cure):
    with pytest.raises(DataError, match=re.escape(cure)):
        load(write(text, "table.csv"))


def test_a_source_that_is_no_path_is_refused_with_the_cure():
    for source in (io.StringIO("a,b\n1,2\n"), np.eye(3)):
        with pytest.raises(ArgumentError, match=r"Received: .*Pass arrays and tables to"):
            load(source)


def test_text_of_too_many_values_is_refused(write):
    rows = "".join(f"{i},name {i},{i % 2}\n" for i in range(101))
    with pytest.raises(DataError, match=r"101 in column 'who'.*'name 0' in data row 1"):
        load(write("a,who,y\n" + rows))
    with pytest.raises(DataError, match=r"'name 0' in data row 1.*ignore=\['who'\]"):
        load(write("a,who,y\n" + rows))
    assert load(write("a,who,y\n" + rows), ignore=["who"]).feature_names == ("a",)
    rows = "".join(f"{i},name {i},{i % 2}\n" for i in range(100))
    assert load(write("a,who,y\n" + rows)).n_features == 101


def test_a_column_of_numbers_with_a_word_is_refused(write):
    rows = ["a,b,y", *(f"{i % 7},{i % 5},{i % 2}" for i in range(600))]
    rows[500] = "oops,3,1"
    path = write("\n".join(rows) + "\n")
    expected = (
        r"table.csv: column 'a' holds numbers, but text in 1 of 600 rows, first 'oops' in data row "
        r"500\. .*missing='drop'.*categorical=\['a'\]"
    )
    with pytest.raises(DataError, match=expected):
        load(path)
    assert load(path, categorical=["a"]).n_features == 9
    path = write("\n".join(rows).replace("oops", "n/a") + "\n")
    assert load(path, missing="drop").n_features == 2
    # The same in the target, which would become classes.
    rows = ["a,y", *(f"{i},{i / 8}" for i in range(100)), "7,unknown"]
    path = write("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"column 'y'.*'unknown' in data row 101.*task='classif"):
        load(path)
    assert load(path, task="classification").n_classes == 101


def test_a_column_of_numbers_with_many_words_becomes_categories_with_a_warning(write, caplog):
    path = write("floor,y\n1,0\n2,1\n3,0\n1,1\nG,1\n2,0\n")
    assert load(path).feature_names == ("floor=1", "floor=2", "floor=3", "floor=G")
    assert "text in 1 of 6 rows, first 'G' in data row 5" in caplog.text
    assert "categorical=['floor']" in caplog.text
    caplog.clear()
    assert load(path, categorical=["floor"]).n_features == 4
    assert load(write("size,y\nS,0\nM,1\n38,0\nL,1\n")).n_features == 4
    assert not caplog.records


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
        (
            "colour,size,open\nred,1,no\nRed,1,no\n",
            r"'colour'.*'blue', 'red'. Received: 'Red' in data row 2",
        ),
        ("colour,size,open\nred,1,no\nred,big,no\n", "'size' must be numbers.*'big' in data row 2"),
        ("colour,size,open\nred,1,maybe\n", "'open'.*'maybe' in data row 1"),
        ("colour,size,open\nred,inf,no\n", "infinity in data row 1"),
        ("colour,size,open\nred,,no\n", "size: 1"),
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


def test_coding_names_the_first_row_with_an_unknown_class(write, coding):
    text = "colour,size,open,kind\nred,1,no,a\nred,1,no,z\nred,1,no,m\n"
    with pytest.raises(DataError, match="'z' in data row 2"):
        load(write(text), coding=coding)


def test_coding_drops_rows_and_keeps_the_row_numbers_of_the_file(write, coding):
    text = "colour,size,open\nred,1,no\nred,,no\nblue,3,yes\n"
    data = load(write(text), coding=coding, missing="drop")
    assert (data.n_samples, data.n_dropped) == (2, 1)
    with pytest.raises(DataError, match="'green' in data row 3"):
        load(write(text.replace("blue", "green")), coding=coding, missing="drop")


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
    with pytest.raises(DataError, match="index=False"):
        load(tmp_path / name)


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
        load(path)
    data = load(path, missing="drop")
    assert data.x.tolist() == [[1, 1, 0], [4, 0, 1]]
    assert (data.task, data.n_dropped) == ("regression", 2)
    assert load(path, target="a", missing="drop", task="regression").columns.target == "a"
    again = load(parquet({"b": ["y"], "a": ["7"]}), coding=data.columns)
    assert again.x.tolist() == [[7, 0, 1]]


def test_parquet_types(parquet):
    arrow = pytest.importorskip("pyarrow")
    decimal = arrow.array([1, 2, 3, 4]).cast(arrow.decimal128(21, 2))
    flags = arrow.array([True, False, True, False])
    columns = {"d": decimal, "f16": np.arange(4, dtype=np.float16)}
    columns["coded"] = arrow.array([5, 7, 5, None]).dictionary_encode()
    data = load(parquet({**columns, "y": flags}), missing="drop")
    assert data.x.tolist() == [[1, 0, 5], [2, 1, 7], [3, 2, 5]]
    assert data.classes == ("False", "True")
    when = arrow.array([0, 1, 2, 3], type=arrow.timestamp("s"))
    with pytest.raises(DataError, match="column 'when' of type timestamp"):
        load(parquet({"when": when, "y": flags}))
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
