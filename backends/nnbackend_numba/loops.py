"""The loops to compile, each one pass over memory.

`compiling` replaces `formula`. Arrays are C-contiguous unless stated otherwise.
Shape letters: B rows, O outputs, K pieces, P parameters.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nnbackend.backend import philox
from nnbackend.backend.base import FAR
from nnbackend_numba import scalars
from nnbackend_numba.intrinsics import high_word

formula: Any = None
M0, M1 = (np.uint64(m) for m in philox.MULTIPLIERS)
BUMP0, BUMP1 = (np.uint64(b) for b in philox.KEY_BUMPS)

# ---- layers -------------------------------------------------------------------------------------


# These loop over the columns from `first` to `last`, exclusive. They slice each row first: with
# range(first, last) numba handles negative indices, which prevents vectorization.


def bias_value(z, b, a, first, last):
    """z += b;  a = phi(z), for a formula of z and xp."""
    b = b[first:last]
    for i in range(z.shape[0]):
        zi, ai = z[i, first:last], a[i, first:last]
        for j in range(zi.size):
            v = zi[j] + b[j]
            zi[j] = v
            ai[j] = formula(v, scalars)


def bias_value_plain(z, b, a, first, last):
    """Compute the same as `bias_value` for a formula of z alone."""
    b = b[first:last]
    for i in range(z.shape[0]):
        zi, ai = z[i, first:last], a[i, first:last]
        for j in range(zi.size):
            v = zi[j] + b[j]
            zi[j] = v
            ai[j] = formula(v)


def bias_value_in_place(z, b, a, first, last):
    """Compute the same if a is z, which the compiler needs to know to vectorize the loop."""
    b = b[first:last]
    for i in range(z.shape[0]):
        zi = z[i, first:last]
        for j in range(zi.size):
            zi[j] = formula(zi[j] + b[j], scalars)


def softmax(z, b, a):
    """z += b;  a = e^z / sum e^z of a row."""
    for i in range(z.shape[0]):
        zi, ai = z[i], a[i]
        top = -zi.dtype.type(np.inf)
        for j in range(zi.size):
            zi[j] += b[j]
            top = max(top, zi[j])
        total = zi.dtype.type(0)
        for j in range(zi.size):
            ai[j] = scalars.exp(zi[j] - top)
            total += ai[j]
        for j in range(zi.size):
            ai[j] /= total


def slope(delta, z, a, first, last):
    """delta *= phi'(z), for a formula of z, a and xp."""
    for i in range(delta.shape[0]):
        di, zi, ai = delta[i, first:last], z[i, first:last], a[i, first:last]
        for j in range(di.size):
            di[j] *= formula(zi[j], ai[j], scalars)


def slope_plain(delta, z, a, first, last):
    """Compute the same as `slope` for a formula of z alone."""
    for i in range(delta.shape[0]):
        di, zi = delta[i, first:last], z[i, first:last]
        for j in range(di.size):
            di[j] *= formula(zi[j])


def bias(z, b, a, first, last):
    """z += b, for the identity activation; a is z."""
    b = b[first:last]
    for i in range(z.shape[0]):
        zi = z[i, first:last]
        for j in range(zi.size):
            zi[j] += b[j]


def bias_gradient(delta, db, first, last):
    """db = sum of delta's rows."""
    db = db[first:last]
    for j in range(db.size):
        db[j] = 0
    for i in range(delta.shape[0]):
        di = delta[i, first:last]
        for j in range(di.size):
            db[j] += di[j]


def add_parts(parts, lo, total, first, last):
    """total = the sum of parts (n, B, O), whose row lo is the first of total."""
    for i in range(total.shape[0]):
        ti, p = total[i, first:last], parts[0, lo + i, first:last]
        for j in range(ti.size):
            ti[j] = p[j]
        for k in range(1, parts.shape[0]):
            p = parts[k, lo + i, first:last]
            for j in range(ti.size):
                ti[j] += p[j]


def maxout(z, a, which):
    """Compute a = the largest piece, which = its index; ties: the first."""
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


def dropout(x, seed, layer, step, first_row, threshold, scale, a, mask):
    """Compute a = x * scale where the unit's 16 bits are below the threshold, else 0.

    The arguments that address the bits are uint64; see `philox`.
    """
    n = x.shape[1]
    blocks = np.uint64((n + 15) // 16)
    for i in range(x.shape[0]):
        row = (first_row + np.uint64(i)) * blocks
        for block in range((n + 15) // 16):
            c0, c1 = row + np.uint64(block + 1), np.uint64(0)
            c2, c3 = step, np.uint64(0)
            k0, k1 = seed, layer
            for _ in range(10):
                high0, high1 = high_word(c0, M0), high_word(c2, M1)
                c0, c1, c2, c3 = high1 ^ c1 ^ k0, c2 * M1, high0 ^ c3 ^ k1, c0 * M0
                k0, k1 = k0 + BUMP0, k1 + BUMP1
            for j in range(block * 16, min(n, block * 16 + 16)):
                place = j & 15
                word = (c0, c1, c2, c3)[place >> 2]
                keep = ((word >> np.uint64(16 * (place & 3))) & np.uint64(0xFFFF)) < threshold
                mask[i, j] = keep
                a[i, j] = x[i, j] * scale if keep else x.dtype.type(0)


def dropout_gradient(da, mask, scale, dx):
    """dx = da * scale where the unit was kept, else 0."""
    for i in range(da.shape[0]):
        for j in range(da.shape[1]):
            dx[i, j] = da[i, j] * scale if mask[i, j] else da.dtype.type(0)


# ---- losses: delta = the gradient of the mean; return the sum of the rows' losses -----------


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


def loss_of_elements(out, y, share, delta):
    """Compute a loss that is a sum over the outputs, and delta.

    The formula returns the loss and gradient of one output.
    """
    total = 0.0
    for i in range(out.shape[0]):
        row = out.dtype.type(0)
        for j in range(out.shape[1]):
            value, gradient = formula(out[i, j], y[i, j], scalars)
            row += value
            delta[i, j] = gradient * share
        total += row
    return total


# ---- updates ------------------------------------------------------------------------------------


def update0(theta, g, s, r, c, p, keep, start, stop):
    """One step of a rule without state, after theta *= keep, for theta[start:stop]."""
    theta = theta[start:stop]
    g = g[start:stop]
    for i in range(theta.size):
        theta[i] = formula(theta[i] * keep, g[i], (), c, p, scalars)[0]


def update1(theta, g, s, r, c, p, keep, start, stop):
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
    """gradient += l2 w + l1 sign(w); return l1 sum |w| + l2 / 2 sum w^2."""
    first = 0.0
    second = 0.0
    for i in range(weights.size):
        w = weights[i]
        first += abs(w)
        second += w * w
        gradient[i] += l2 * w + l1 * np.sign(w)
    return l1 * first + 0.5 * l2 * second


def squares(v):
    """Return the sum of squares."""
    total = 0.0
    for i in range(v.size):
        total += v[i] * v[i]
    return total


def shrink(v, factor):
    """v *= factor."""
    for i in range(v.size):
        v[i] *= factor


def average(theta, ema_weights, move):
    """ema_weights += move * (theta - ema_weights)."""
    for i in range(theta.size):
        ema_weights[i] += move * (theta[i] - ema_weights[i])


def limit_columns(W, limit, norms, first, last):
    """Shrink columns to a norm of at most `limit`; norms (O,) is scratch."""
    norms = norms[first:last]
    for j in range(norms.size):
        norms[j] = 0
    for i in range(W.shape[0]):
        w = W[i, first:last]
        for j in range(w.size):
            norms[j] += w[j] * w[j]
    for j in range(norms.size):
        n = math.sqrt(norms[j])
        norms[j] = limit / n if n > limit else 1
    for i in range(W.shape[0]):
        w = W[i, first:last]
        for j in range(w.size):
            w[j] *= norms[j]


# ---- batches ------------------------------------------------------------------------------------


def gather(data, order, start, out, first, last):
    """out = data[order[start:]] for rows (n, I), in out's dtype; columns as above."""
    for i in range(out.shape[0]):
        row, oi = data[order[start + i], first:last], out[i, first:last]
        for j in range(oi.size):
            oi[j] = row[j]


def scale_rows(rows, shift, factor, clip, out, first, last):
    """out = (rows - shift) * factor in float64, clipped smoothly where clip is above 0."""
    shift, factor = shift[first:last], factor[first:last]
    for i in range(rows.shape[0]):
        ri, oi = rows[i, first:last], out[i, first:last]
        for j in range(oi.size):
            t = (ri[j] - shift[j]) * factor[j]
            if clip > 0:
                u = max(min(t / clip, FAR), -FAR)
                t = u * clip / math.sqrt(1.0 + u * u)
            oi[j] = t


def tick(clock, rates, hyper):
    """Begin a step: count it, read its learning rate and momentum."""
    clock[0] += 1
    clock[1] += 1
    hyper[0] = rates[0, clock[1]]
    hyper[1] = rates[1, clock[1]]
    hyper[2] = clock[0]
