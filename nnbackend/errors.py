"""The exceptions of the library, in one tree.

    NNBackendError
    ├── BackendError                a device cannot be used
    │   ├── UnknownBackendError     (ValueError)    no backend of that name
    │   ├── BackendUnavailableError (RuntimeError)  known, but not usable here
    │   ├── BackendVersionError     (RuntimeError)  written for another version of the backend API
    │   ├── DeviceMemoryError       (MemoryError)   a device has no memory left
    │   ├── DeviceLostError         (RuntimeError)  this process can no longer use the device
    │   └── DeviceMismatchError     (TypeError)     an array of another library or device
    ├── ArgumentError               (ValueError)    an invalid option
    ├── ShapeError                  (ValueError)    an array of the wrong shape or dtype
    ├── DataError                   (ValueError)    data that cannot be read or learnt from
    ├── ModelFileError              (ValueError)    an incomplete or modified model file
    └── DivergedError               (ArithmeticError)  the loss or weights are no longer finite

A message states what was expected, what was received and the cure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class NNBackendError(Exception):
    """Base class of the library's errors."""


class BackendError(NNBackendError):
    """Error for a backend that could not be found, loaded or used."""


class UnknownBackendError(BackendError, ValueError):
    """Error for a name under which no backend is registered."""


class BackendUnavailableError(BackendError, RuntimeError):
    """Error for a known backend that cannot be used on this machine."""


class BackendVersionError(BackendError, RuntimeError):
    """Error for a plug-in that was written for another version of the backend API."""


class DeviceMemoryError(BackendError, MemoryError):
    """Error of a device without memory for an array, a kernel or a recording.

    Training and prediction retry a failed batch in smaller parts, also after NumPy's MemoryError
    (host memory), which is not converted.
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
        """Return the error of a device.

        asked, free, total: bytes, if known.  cause: the message of the array library.
        cure: a further cure on this device.
        >>> print(DeviceMemoryError.on("mine:0", asked=4096, free=1000, total=8000))
        mine:0 is out of memory: 4,096 bytes were asked for, 1,000 of 8,000 are free. Use a \
smaller batch_size=, fewer rows at once, a smaller network, float32, or device='cpu'.
        """
        of_total = f" of {total:,}" if total else ""
        facts = [
            f"{asked:,} bytes were asked for" if asked is not None else "",
            f"{free:,}{of_total} are free" if free is not None else "",
            cause.rstrip("."),
        ]
        known = ", ".join(filter(None, facts)) or "an allocation failed"
        return cls(
            f"{device} is out of memory: {known}. Use a smaller batch_size=, fewer rows at once, "
            f"a smaller network, float32, or device='cpu'.{cure and ' '}{cure}"
        )


class DeviceLostError(BackendError, RuntimeError):
    """Error of a failed device: every further call of this process would fail too.

    Files already written are complete: a new process resumes from the last checkpoint.
    """


class DeviceMismatchError(BackendError, TypeError):
    """Error for an array of another library or device than the network's."""


class ArgumentError(NNBackendError, ValueError):
    """Error for an option with an invalid value."""


class ShapeError(NNBackendError, ValueError):
    """Error for an array of the wrong shape or dtype."""


class DataError(NNBackendError, ValueError):
    """Error for data that cannot be read or learnt from."""


class ModelFileError(NNBackendError, ValueError):
    """Error for an incomplete or modified model file."""


class DivergedError(NNBackendError, ArithmeticError):
    """Error for a loss or weights that are no longer finite; the message suggests cures.

    history: the history of the epochs before.
    """

    history: Any = None


def check(
    name: str, value: Any, is_good: Callable[[Any], bool], expected: str, of: str = ""
) -> None:
    """Raise ArgumentError unless is_good(value); an error in is_good counts as False.

    >>> check("momentum", 0.9, lambda v: 0 <= v < 1, "at least 0 and below 1")
    """
    try:
        good = not isinstance(value, str) and bool(is_good(value))
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        owner = f" of {of}" if of else ""
        raise ArgumentError(f"{name}{owner} must be {expected}. Received: {name}={value!r}.")
