"""Every exception the library raises on purpose, in one tree.

    NNBackendError
    ├── BackendError                a device could not serve
    │   ├── UnknownBackendError     (ValueError)    no backend of that name
    │   ├── BackendUnavailableError (RuntimeError)  known, but not usable here
    │   ├── BackendVersionError     (RuntimeError)  written for another version of the seam
    │   ├── DeviceMemoryError       (MemoryError)   a device has no memory left
    │   ├── DeviceLostError         (RuntimeError)  this process can use the device no more
    │   └── DeviceMismatchError     (TypeError)     an array of another library or device
    ├── ArgumentError               (ValueError)    an option that cannot be meant
    ├── ShapeError                  (ValueError)    an array of the wrong shape or dtype
    ├── DataError                   (ValueError)    data that cannot be read or learnt from
    ├── ModelFileError              (ValueError)    not a whole, unchanged model
    └── DivergedError               (ArithmeticError)  training left the finite numbers

A message says what was expected, what was received, and what would mend it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class NNBackendError(Exception):
    """Base of all errors raised on purpose by nnbackend."""


class BackendError(NNBackendError):
    """A backend could not be found, loaded or used."""


class UnknownBackendError(BackendError, ValueError):
    """No backend of that name is registered."""


class BackendUnavailableError(BackendError, RuntimeError):
    """The backend is known but cannot be used on this machine."""


class BackendVersionError(BackendError, RuntimeError):
    """The plug-in was written for another version of the seam."""


class DeviceMemoryError(BackendError, MemoryError):
    """A device has no memory left for an array, a kernel or a recording.

    A batch or a prediction that raises it is tried again in parts. So is NumPy's own MemoryError,
    which is of the host's memory and stays what it is.
    """

    @classmethod
    def on(
        cls,
        device: str,
        asked: int | None = None,
        free: int | None = None,
        total: int | None = None,
        *,
        cause: str = "",
        cure: str = "",
    ) -> DeviceMemoryError:
        """Return the error of a device: bytes asked for, free and in all, as far as known.

        cause: what the library said.  cure: what mends it on this device, beside less work at once.
        >>> print(DeviceMemoryError.on("mine:0", asked=4096, free=1000, total=8000))
        mine:0 is out of memory: 4,096 bytes were asked for, 1,000 of 8,000 are free. Use a \
smaller batch_size=, fewer rows at once, a smaller network, float32, or device='cpu'.
        """
        whole = f" of {total:,}" if total else ""
        facts = [
            f"{asked:,} bytes were asked for" if asked is not None else "",
            f"{free:,}{whole} are free" if free is not None else "",
            cause.rstrip("."),
        ]
        known = ", ".join(filter(None, facts)) or "an allocation failed"
        return cls(
            f"{device} is out of memory: {known}. Use a smaller batch_size=, fewer rows at once, "
            f"a smaller network, float32, or device='cpu'.{cure and ' '}{cure}"
        )


class DeviceLostError(BackendError, RuntimeError):
    """The device failed, and every further call of this process would fail.

    Files already written are whole: a new process resumes from the last checkpoint.
    """


class DeviceMismatchError(BackendError, TypeError):
    """An array belongs to another library or device than the network."""


class ArgumentError(NNBackendError, ValueError):
    """An option has a value that cannot be meant."""


class ShapeError(NNBackendError, ValueError):
    """An array has the wrong shape or dtype."""


class DataError(NNBackendError, ValueError):
    """The data cannot be read, or cannot be learnt from."""


class ModelFileError(NNBackendError, ValueError):
    """The file is not a whole and unchanged model."""


class DivergedError(NNBackendError, ArithmeticError):
    """Training left the finite numbers; the message says what to try.

    history: of the epochs before.
    """

    history: Any = None


def check(
    name: str, value: Any, is_good: Callable[[Any], bool], expected: str, of: str = ""
) -> None:
    """Raise ArgumentError unless is_good(value), which may itself fail for the wrong type.

    >>> check("momentum", 0.9, lambda v: 0 <= v < 1, "at least 0 and below 1")
    """
    try:
        good = not isinstance(value, str) and bool(is_good(value))
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        owner = f" of {of}" if of else ""
        raise ArgumentError(f"{name}{owner} must be {expected}. Received: {name}={value!r}.")


# What our names, of options too, are called elsewhere, without capitals and signs: for hints in
# errors alone.
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
    "sgd": "gd gradientdescent momentum nesterov",
    "sigmoid": "logistic expit",
    "silu": "swish",
    "standard": "zscore standardscaler",
    "step": "heaviside",
    "unit": "minmax minmaxscaler",
    "validation": "val valid valsplit",
}


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error about an unknown name: the choices, and the one that was meant.

    >>> suggest("rellu", ["relu", "tanh"])
    "Known: relu, tanh. Did you mean 'relu'?"
    """
    names = sorted(known)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    return f"Known: {', '.join(names)}.{hint}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was meant: spelt otherwise, called so elsewhere, or the nearest."""
    names, plain = list(known), _plain(name)
    for own in names:
        if plain in {_plain(own), *OTHER_NAMES.get(own.strip("-").replace("-", "_"), "").split()}:
            return own
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def _plain(name: str) -> str:
    """Return a name without capitals and signs."""
    return "".join(filter(str.isalnum, name)).lower()
