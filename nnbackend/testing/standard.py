"""The names of the Python array API standard (2024.12) that a backend's `xp` may be asked for."""

from __future__ import annotations

_DTYPES = """
    bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128
"""
# Answered on the host from dtypes alone, without looking at values.
_HOST_ANSWERS = "can_cast finfo iinfo isdtype"
# Their result's shape depends on values, so that a device must be waited for.
_VALUE_SHAPES = "nonzero unique_all unique_counts unique_inverse unique_values from_dlpack"
_OTHERS = """
    e inf nan newaxis pi
    arange asarray empty empty_like eye full full_like linspace meshgrid ones ones_like tril triu
    zeros zeros_like astype broadcast_arrays broadcast_to result_type
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_invert
    bitwise_or bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp
    expm1 floor floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal
    log log1p log2 log10 logaddexp logical_and logical_not logical_or logical_xor maximum minimum
    multiply negative nextafter not_equal positive pow real reciprocal remainder round sign signbit
    sin sinh square sqrt subtract tan tanh trunc
    take take_along_axis matmul matrix_transpose tensordot vecdot
    concat expand_dims flip moveaxis permute_dims repeat reshape roll squeeze stack tile unstack
    argmax argmin count_nonzero searchsorted where argsort sort
    cumulative_prod cumulative_sum max mean min prod std sum var all any diff
"""
HOST_ANSWERS = frozenset(_HOST_ANSWERS.split())
VALUE_SHAPES = frozenset(_VALUE_SHAPES.split())
STANDARD = HOST_ANSWERS | VALUE_SHAPES | frozenset(_DTYPES.split() + _OTHERS.split())
