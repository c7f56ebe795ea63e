"""What each parameter of the estimators means, for `help` and the API reference.

The docstrings get a section "Parameters" in the form that scikit-learn's docstrings have.
"""

from __future__ import annotations

import inspect
from textwrap import fill
from typing import TypeVar

from nnbackend.config import UpdateOptions
from nnbackend.options import table

Class = TypeVar("Class", bound=type)

MEANINGS = {
    "hidden_layer_sizes": "units of the hidden layers, or layers such as nn.Maxout(64)",
    "activation": "activation of the hidden layers, or a list with one for each",
    "solver": "optimizer, by name or as an object; lbfgs uses all rows in each iteration",
    "alpha": "strength of the L2 penalty, alpha / 2 sum w^2, divided by the rows of a batch",
    "batch_size": 'rows of a mini-batch; "auto" is 200, or all rows if there are fewer; for the '
    "estimators for tables an eighth of the rows, from 32 to 256",
    "learning_rate": "course of the learning rate with the solver sgd: constant, falling with "
    "each step (invscaling), or divided by 5 when the loss no longer improves (adaptive)",
    "learning_rate_init": "learning rate at the beginning",
    "power_t": "exponent of invscaling",
    "max_iter": 'largest number of epochs; "auto", for tables, tries 10, 40 and 160',
    "shuffle": "whether to draw a new order of the rows in each epoch",
    "random_state": "seed of the initial weights, the order of the rows and held-out rows",
    "tol": "smallest improvement of the loss or score that counts for stopping",
    "verbose": 'whether to print progress; "bar" for a progress bar',
    "warm_start": "whether a new fit begins with the weights of the last",
    "momentum": "momentum of the solver sgd",
    "nesterovs_momentum": "whether the momentum is Nesterov's",
    "early_stopping": "whether to hold out rows, and to stop when they no longer improve",
    "validation_fraction": "share of the rows that early stopping holds out",
    "beta_1": "decay of the mean of the gradient, in adam and adamw",
    "beta_2": "decay of the mean of the squared gradient, in adam and adamw",
    "epsilon": "added to the root in adam and adamw, so that nothing is divided by 0",
    "n_iter_no_change": "epochs without an improvement after which training stops",
    "max_fun": "largest number of evaluations of the loss by lbfgs",
    "device": "cpu, gpu or the name of a backend; None means NNBACKEND_DEVICE, then auto",
    "dtype": "float32 or float64; None is that of the rows",
    "dropout": "share of hidden units set to 0; a list also sets the inputs, which come first",
    "monitor": "what early stopping watches: score or valid_loss",
    "callbacks": "a callback, or a list of them, called after each epoch",
    "label_smoothing": "share of the target that is spread over all classes",
    "class_weight": 'weight of each class, {label: weight}, or "balanced"',
    "loss": "loss to minimise, by name or as one of nn.losses",
    "n_members": "number of networks, whose answers are averaged",
    "n_bins": "bins of each numeric column, each of them a feature",
    "bin_scale": "factor of these features",
    "threshold": "probability above which the second of two classes is the answer: a number, a "
    "metric to choose it by, or None for the more probable class",
}


def with_meanings(kind: Class) -> Class:
    """Append a section with the parameters of an estimator to its docstring."""
    lines = ["", "", "Parameters", "----------"]
    shared = table(UpdateOptions)
    for name in inspect.signature(kind).parameters:
        text = shared[name].help_text("None") if name in shared else MEANINGS[name]
        lines += [
            f"{name}",
            fill(f"{text}.", 96, initial_indent=" " * 4, subsequent_indent=" " * 4),
        ]
    kind.__doc__ = inspect.cleandoc(kind.__doc__ or "") + "\n".join(lines) + "\n"
    return kind
