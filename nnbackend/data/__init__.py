"""Reading, validation and scaling of data, before the first array reaches a device.

Formats that need another package (scikit-learn's sets, Parquet) import it when they are read, so
importing this package needs only NumPy.
"""

from nnbackend.data.builtin import BUILTIN, spirals, xor
from nnbackend.data.coding import ColumnCoding
from nnbackend.data.columns import (
    CategoryColumn,
    CodedColumn,
    DateColumn,
    LeftOutColumn,
    NumberColumn,
    YesNoColumn,
)
from nnbackend.data.dataset import Dataset
from nnbackend.data.many_levels import ManyLevelsColumn
from nnbackend.data.readers import load
from nnbackend.data.scalers import Scaler, ScalerKind, default_scaler_kind, fit_scaler
from nnbackend.data.stream import Stream
from nnbackend.data.targets import Label, Task
from nnbackend.data.text_columns import TextColumn

__all__ = [
    "BUILTIN",
    "CategoryColumn",
    "CodedColumn",
    "ColumnCoding",
    "Dataset",
    "DateColumn",
    "Label",
    "LeftOutColumn",
    "ManyLevelsColumn",
    "NumberColumn",
    "Scaler",
    "ScalerKind",
    "Stream",
    "Task",
    "TextColumn",
    "YesNoColumn",
    "default_scaler_kind",
    "fit_scaler",
    "load",
    "spirals",
    "xor",
]
