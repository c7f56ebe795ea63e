"""The loops to compile: one pass over memory each, with the formula put in.

`formula` is filled in by `compiling`. Arrays are C-contiguous unless said.
Shape letters: B rows, O outputs, K pieces, P parameters.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnbackend_numba import scalars

formula: Any = None

# ---- layers -------------------------------------------------------------------------------------


def bias_value(z, b, a):
    """z += b;  a = phi(z), for a formula of z and xp."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = v
            a[i, j] = formula(v, scalars)


def bias_value_plain(z, b, a):
    """The same for a formula of z alone."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            v = z[i, j] + b[j]
            z[i, j] = v
            a[i, j] = formula(v)


def slope_and_bias(delta, z, a, db):
    """delta *= phi'(z);  db = sum of delta's rows, for a formula of z, a and xp."""
    for j in range(delta.shape[1]):
        db[j] = 0
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            d = delta[i, j] * formula(z[i, j], a[i, j], scalars)
            delta[i, j] = d
            db[j] += d


def slope_and_bias_plain(delta, z, a, db):
    """The same for a formula of z alone."""
    for j in range(delta.shape[1]):
        db[j] = 0
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            d = delta[i, j] * formula(z[i, j])
            delta[i, j] = d
            db[j] += d


def bias(z, b):
    """z += b."""
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            z[i, j] += b[j]


def bias_gradient(delta, db):
    """db = sum of delta's rows."""
    for j in range(delta.shape[1]):
        db[j] = 0
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            db[j] += delta[i, j]


def maxout(z, a, which):
    """a = the largest piece, which = its number; the first of equals."""
    n_out = a.shape[1]
    for i in range(a.shape[0]):
        for j in range(n_out):
            a[i, j] = z[i, j]
            which[i, j] = 0
        for k in range(1, z.shape[1] // n_out):
            for j in range(n_out):
                v = z[i, k * n_out + j]
                if v > a[i, j]:
                    a[i, j] = v
                    which[i, j] = k


def maxout_gradient(delta, which, dz):
    """dz = delta at the winning piece, 0 at the others."""
    n_out = delta.shape[1]
    for i in range(delta.shape[0]):
        for k in range(dz.shape[1] // n_out):
            for j in range(n_out):
                won = which[i, j] == k
                dz[i, k * n_out + j] = delta[i, j] if won else delta.dtype.type(0)


def dropout(x, bits, threshold, scale, a, mask):
    """a = x * scale where the unit's 16 bits are below the threshold, else 0."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            keep = bits[i, j] < threshold
            mask[i, j] = keep
            a[i, j] = x[i, j] * scale if keep else x.dtype.type(0)


def dropout_gradient(da, mask, scale, dx):
    """dx = da * scale where the unit was kept, else 0."""
    for i in range(da.shape[0]):
        for j in range(da.shape[1]):
            dx[i, j] = da[i, j] * scale if mask[i, j] else da.dtype.type(0)


# ---- losses: the mean's gradient in delta; the sum of the rows' losses given back -----------


def softmax_cross_entropy_labels(z, y, smoothing, share, delta):
    """Softmax and cross-entropy with class labels y (B,)."""
    n_out = z.shape[1]
    one = z.dtype.type(1)
    other = smoothing / n_out
    total = 0.0
    for i in range(z.shape[0]):
        top = z[i, 0]
        for j in range(1, n_out):
            top = max(top, z[i, j])
        s = z.dtype.type(0)
        smooth = z.dtype.type(0)
        for j in range(n_out):
            t = z[i, j] - top
            e = scalars.exp(t)
            delta[i, j] = e
            s += e
            smooth += t
        log_s = math.log(s)
        hit = z[i, y[i]] - top
        total += log_s - (one - smoothing) * hit - other * smooth
        scale = share / s
        for j in range(n_out):
            delta[i, j] = delta[i, j] * scale - share * other
        delta[i, y[i]] -= share * (one - smoothing)
    return total


def quadratic(a, y, share, delta):
    """1/2 sum (a - y)^2."""
    total = 0.0
    for i in range(a.shape[0]):
        row = a.dtype.type(0)
        for j in range(a.shape[1]):
            e = a[i, j] - y[i, j]
            row += e * e
            delta[i, j] = e * share
        total += row
    return 0.5 * total


# ---- updates ------------------------------------------------------------------------------------


# Each cuts its stretch out first: with range(start, stop) numba allows for negative indices, and
# the loop is not turned into vector instructions (Adam: five times slower).


def update0(theta, g, c, p, keep, start, stop):
    """One step of a rule without state; theta *= keep first."""
    theta = theta[start:stop]
    g = g[start:stop]
    for i in range(theta.size):
        theta[i] = formula(theta[i] * keep, g[i], (), c, p, scalars)[0]


def update1(theta, g, s, c, p, keep, start, stop):
    """One step of a rule with one state vector."""
    theta = theta[start:stop]
    g = g[start:stop]
    s = s[start:stop]
    for i in range(theta.size):
        t, (u,) = formula(theta[i] * keep, g[i], (s[i],), c, p, scalars)
        theta[i] = t
        s[i] = u


def update2(theta, g, s, r, c, p, keep, start, stop):
    """One step of a rule with two state vectors."""
    theta = theta[start:stop]
    g = g[start:stop]
    s = s[start:stop]
    r = r[start:stop]
    for i in range(theta.size):
        t, (u, v) = formula(theta[i] * keep, g[i], (s[i], r[i]), c, p, scalars)
        theta[i] = t
        s[i] = u
        r[i] = v


def penalty(weights, gradient, l1, l2):
    """gradient += l2 w + l1 sign(w); give l1 sum |w| + l2 / 2 sum w^2."""
    first = 0.0
    second = 0.0
    for i in range(weights.size):
        w = weights[i]
        first += abs(w)
        second += w * w
        gradient[i] += l2 * w + l1 * np.sign(w)
    return l1 * first + 0.5 * l2 * second


def limit_columns(W, limit, norms):
    """Shrink each column to at most `limit` long; norms (O,) is scratch."""
    for j in range(W.shape[1]):
        norms[j] = 0
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            norms[j] += W[i, j] * W[i, j]
    for j in range(W.shape[1]):
        n = math.sqrt(norms[j])
        norms[j] = limit / n if n > limit else 1
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            W[i, j] *= norms[j]


# ---- batches ------------------------------------------------------------------------------------


def gather2(data, order, start, out):
    """out = data[order[start:]] for rows (n, I), in out's dtype."""
    for i in range(out.shape[0]):
        row = order[start + i]
        for j in range(out.shape[1]):
            out[i, j] = data[row, j]


def gather1(data, order, start, out):
    """out = data[order[start:]] for (n,)."""
    for i in range(out.shape[0]):
        out[i] = data[order[start + i]]


def scale_rows(x, shift, factor, inverse_clip):
    """x = (x - shift) * factor, bent smoothly where inverse_clip is above 0."""
    one = x.dtype.type(1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            t = (x[i, j] - shift[j]) * factor[j]
            if inverse_clip > 0:
                t /= math.sqrt(one + (t * inverse_clip) * (t * inverse_clip))
            x[i, j] = t


def tick(clock, rates, hyper):
    """Begin a step: count it, look up its learning rate and momentum."""
    clock[0] += 1
    clock[1] += 1
    hyper[0] = rates[0, clock[1]]
    hyper[1] = rates[1, clock[1]]
    hyper[2] = clock[0]
