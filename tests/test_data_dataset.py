"""The data set, its splits, and the built-in sets."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import nnbackend.data
from nnbackend.data import BUILTIN, Dataset, load, spirals, xor
from nnbackend.errors import ArgumentError, DataError, ShapeError


def dataset(y, task="classification", classes=(0, 1), **more):
    y = np.asarray(y)
    x = np.arange(2.0 * len(y)).reshape(len(y), 2)
    return Dataset(x, y, "made", task, classes, **more)


def identities(data):
    """Return the numbers of the rows of `dataset`, which its first feature encodes."""
    return set((data.x[:, 0] / 2).astype(int).tolist())


def test_importing_the_package_imports_no_optional_dependency():
    code = (
        "import sys, nnbackend.data; "
        "print([m for m in ('sklearn', 'scipy', 'pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_is_sorted_and_complete():
    assert nnbackend.data.__all__ == sorted(nnbackend.data.__all__)
    assert all(hasattr(nnbackend.data, name) for name in nnbackend.data.__all__)


def test_shapes_of_arrays_must_match():
    with pytest.raises(ShapeError, match=r"two dimensions.*\(3,\)"):
        Dataset(np.zeros(3), None, "bad", None)
    with pytest.raises(ShapeError, match="same number of rows"):
        Dataset(np.zeros((3, 2)), np.zeros(4), "bad", None)
    with pytest.raises(ShapeError, match="feature_names"):
        Dataset(np.zeros((3, 2)), None, "bad", None, feature_names=("only",))


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_split_is_a_stratified_partition(fraction):
    y = np.repeat([0, 1, 2], [100, 40, 13])
    data = dataset(y, classes=(0, 1, 2))
    rest, held_out = data.split(fraction, seed=3)
    assert identities(rest) | identities(held_out) == set(range(153))
    assert not identities(rest) & identities(held_out)
    assert held_out.n_samples == round(fraction * 153)
    counts = np.bincount(held_out.y, minlength=3)
    assert np.all(np.abs(counts - fraction * np.array([100, 40, 13])) <= 1)
    # Targets stay with their rows.
    for part in (rest, held_out):
        np.testing.assert_array_equal(part.y, y[(part.x[:, 0] / 2).astype(int)])


def test_split_depends_on_the_seed():
    data = dataset([0, 1] * 50)
    first, again, other = (identities(data.split(0.3, seed)[1]) for seed in (1, 1, 2))
    assert first == again != other


def test_split_keeps_a_row_of_every_class_in_the_rest_if_possible():
    y = [0] * 17 + [1] * 2 + [2]
    for seed in range(20):
        rest, held_out = dataset(y, classes=(0, 1, 2)).split(0.4, seed)
        assert set(rest.y) == {0, 1, 2}
        assert held_out.n_samples == 8
        # Of the quotas 3.5, 3.5 and 0.7 the last has the largest remainder, but only one row.
        rest, held_out = dataset([0] * 5 + [1] * 5 + [2], classes=(0, 1, 2)).split(0.7, seed)
        assert np.bincount(rest.y).tolist() == [1, 1, 1]
    # With a single row per class, the rest cannot keep all classes.
    rest, held_out = dataset([0, 1, 2, 3, 4], classes=tuple(range(5))).split(0.4, 0)
    assert (rest.n_samples, held_out.n_samples) == (3, 2)


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_split_leaves_a_row_in_each_part(fraction, task, n):
    rest, held_out = dataset(np.arange(n) % 2, task).split(fraction, 0)
    assert rest.n_samples >= 1
    assert held_out.n_samples >= 1
    assert rest.n_samples + held_out.n_samples == n


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_an_invalid_fraction(fraction):
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        dataset([0, 1]).split(fraction, 0)


def test_split_refuses_a_single_row():
    with pytest.raises(DataError, match=r"at least 2 rows.*Received: 1"):
        dataset([0]).split(0.5, 0)


def test_split_keeps_the_test_part_with_the_rest():
    test = dataset([0, 1])
    rest, held_out = dataset([0, 1] * 5, test=test).split(0.2, 0)
    assert rest.test is test
    assert held_out.test is None


def test_rows_by_index_mask_and_slice():
    data = dataset([0, 1, 1, 0])
    for chosen in ([1, 2], np.array([False, True, True, False]), slice(1, 3)):
        part = data.rows(chosen)
        assert part.y.tolist() == [1, 1]
        assert part.x.tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_recode_uses_the_classes_of_a_model():
    data = dataset([0, 1, 0], classes=("cat", "dog"), test=dataset([1], classes=("cat", "dog")))
    recoded = data.recode(["dog", "bird", "cat"])
    assert recoded.y.tolist() == [2, 0, 2]
    assert recoded.test.y.tolist() == [0]
    assert recoded.classes == ("dog", "bird", "cat")
    assert dataset([0, 1], classes=("3", "7")).recode((3, 5, 7)).y.tolist() == [0, 2]
    with pytest.raises(DataError, match="'dog'"):
        data.recode(["cat", "bird"])


@pytest.mark.parametrize(
    ("name", "shape", "n_classes"),
    [
        ("digits", (1797, 64), 10),
        ("iris", (150, 4), 3),
        ("wine", (178, 13), 3),
        ("breast_cancer", (569, 30), 2),
        ("diabetes", (442, 10), None),
        ("xor", (400, 2), 2),
        ("spirals", (400, 2), 2),
    ],
)
def test_builtin_sets(name, shape, n_classes):
    data = load(name)
    assert data.name == name
    assert data.x.shape == shape
    assert data.x.dtype == np.float64
    assert data.n_classes == n_classes
    assert len(data.feature_names) == shape[1]
    if n_classes is None:
        assert data.task == "regression"
        assert data.y.dtype == np.float64
    else:
        assert data.task == "classification"
        assert data.y.dtype == np.int64
        assert set(data.y) == set(range(n_classes))
        assert all(type(label) in (str, int) for label in data.classes)


def test_all_builtin_sets_are_tested():
    assert sorted(BUILTIN) == sorted(
        ["digits", "iris", "wine", "breast_cancer", "diabetes", "xor", "spirals"]
    )


def test_builtin_labels_are_the_names():
    iris = load("iris")
    assert iris.classes == ("setosa", "versicolor", "virginica")
    assert iris.feature_names[0] == "sepal length (cm)"


def test_xor_is_the_truth_table():
    data = xor(n_samples=4, noise=0.0)
    assert data.x.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert data.y.tolist() == [0, 1, 1, 0]
    noisy = xor(n_samples=400, noise=0.05)
    assert noisy.y.tolist() == [int(a != b) for a, b in (noisy.x > 0.5).tolist()]


def test_spirals_are_two_rotated_copies():
    data = spirals(n_samples=200, noise=0.0)
    assert np.bincount(data.y).tolist() == [100, 100]
    radius = np.hypot(*data.x.T)
    assert 0.1 <= radius.min() < radius.max() <= 1.0
    angle = np.arctan2(data.x[:, 1], data.x[:, 0]) - 3.0 * np.pi * radius
    np.testing.assert_allclose(np.cos(angle), np.where(data.y == 0, 1.0, -1.0))


@pytest.mark.parametrize("make", [xor, spirals])
def test_synthetic_sets_depend_on_the_seed(make):
    assert np.array_equal(make(seed=1).x, make(seed=1).x)
    assert not np.array_equal(make(seed=1).x, make(seed=2).x)
    with pytest.raises(ArgumentError, match="n_samples=1"):
        make(n_samples=1)
    with pytest.raises(ArgumentError, match=r"noise=-0\.1"):
        make(noise=-0.1)


def test_missing_scikit_learn_raises_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load("iris")


def test_unknown_names_and_suffixes(tmp_path):
    with pytest.raises(DataError, match=r"Did you mean 'digits'\?.*\.csv"):
        load("digit")
    with pytest.raises(DataError, match="must exist"):
        load(tmp_path / "absent.csv")
    (tmp_path / "iris.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"'iris\.xlsx'.*\.parquet"):
        load(tmp_path / "iris.xlsx")


def test_options_without_effect_are_refused():
    with pytest.raises(ArgumentError, match="target"):
        load("iris", target="species")
    with pytest.raises(ArgumentError, match="'classification' for the set"):
        load("iris", task="regression")
    with pytest.raises(ArgumentError, match="task="):
        load("iris", task="clustering")
    with pytest.raises(ArgumentError, match="missing="):
        load("iris", missing="skip")
