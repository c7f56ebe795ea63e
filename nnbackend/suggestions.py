"""Hints in the error about an unknown name: the choices, and the one that was likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names of other libraries for our names and options, normalized by `_plain`, for hints in errors.
OTHER_NAMES = {
    "absolute": "mae l1 l1loss absoluteerror meanabsoluteerror",
    "batch_size": "batch bs minibatch",
    "binary_cross_entropy": "bce bceloss bcewithlogits bcewithlogitsloss binarycrossentropy",
    "constant": "fixed",
    "cosine": "cosineannealing cosinedecay",
    "cross_entropy": "ce nll nllloss logloss logistic crossentropyloss categoricalcrossentropy "
    "sparsecategoricalcrossentropy negativeloglikelihood",
    "cupy": "cuda nvidia",
    "device": "gpu cuda cpu",
    "epochs": "maxiter nepochs numepochs iterations niter",
    "exponential": "exp",
    "glorot_normal": "xaviernormal",
    "glorot_uniform": "glorot xavier xavieruniform",
    "he_normal": "he kaiming kaimingnormal",
    "he_uniform": "kaiminguniform",
    "hidden": "layers units hiddenlayersizes",
    "huber": "smoothl1 smoothl1loss",
    "identity": "linear",
    "inverse_scaling": "invscaling",
    "lbfgs": "bfgs lbfgsb",
    "learning_rate": "lr eta alpha",
    "out": "output",
    "plateau": "reducelronplateau adaptive",
    "quadratic": "mse l2 mseloss squarederror meansquarederror leastsquares",
    "quantile": "pinball",
    "seed": "randomstate randomseed",
    "roc_auc": "auc auroc rocaucscore",
    "average_precision": "prauc auprc aucpr",
    "balanced_accuracy": "bacc",
    "brier": "brierscore",
    "rmse": "rootmeansquarederror",
    "sgd": "gd gradientdescent momentum nesterov",
    "sigmoid": "logistic expit",
    "silu": "swish",
    "standard": "zscore standardscaler",
    "step": "heaviside",
    "unit": "minmax minmaxscaler",
    "validation": "val valid valsplit validationdata validationsplit validationfraction evalset",
}

CUTOFF = 0.72  # the least similarity of a likely name: "rellu" and "relu" have 0.89


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the choices and the likely one.

    >>> suggest("rellu", ["relu", "tanh"])
    "Known: relu, tanh. Did you mean 'relu'?"
    """
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"Known: {', '.join(names)}.{hint}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the likely known name: by another library's name, its beginning or similarity."""
    names, plain = list(known), _plain(name)
    for ours in names:
        theirs = OTHER_NAMES.get(ours.strip("-").replace("-", "_"), "").split()
        if plain in {_plain(ours), *theirs}:
            return ours
    begun = [ours for ours in names if len(plain) > 2 and _plain(ours).startswith(plain)]
    return next(iter(begun or difflib.get_close_matches(name, names, n=1, cutoff=CUTOFF)), None)


def _plain(name: str) -> str:
    """Return a name in lower case, without punctuation."""
    return "".join(filter(str.isalnum, name)).lower()
