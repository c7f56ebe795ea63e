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

A message states what was expected, what was received and the cure. It is stored in parts, `args`:
texts, options that it mentions, and faults of options. So each front end spells options its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mention:
    """An option named in a message, with a value if one is given: missing='drop', or epochs."""

    option: str
    value: Any = ...  # Ellipsis: only the name

    def __str__(self) -> str:
        return self.option if self.value is ... else f"{self.option}={self.value!r}"


@dataclass(frozen=True)
class Fault:
    """An invalid option: what was expected, what was received, and the cure.

    of: the object that the option belongs to, such as a schedule; "" for a call's own options.
    """

    option: str
    expected: str
    received: Any
    cure: tuple[str | Mention, ...] = ()
    of: str = ""

    @property
    def parts(self) -> tuple[str | Mention, ...]:
        """The sentences: texts and mentioned options."""
        name = f"{self.option} of {self.of}" if self.of else Mention(self.option)
        received = Mention(self.option, self.received)
        said = str(received) if self.of else received
        more = (" ", *self.cure) if self.cure else ()
        return (name, f" must be {self.expected}. Received: ", said, ".", *more)

    def __str__(self) -> str:
        return "".join(map(str, self.parts))


class NNBackendError(Exception):
    """Base class of the library's errors. args: the parts of the message."""

    def __str__(self) -> str:
        return self.spelled(str)

    @property
    def is_several(self) -> bool:
        """Whether the message is a list of faults and other errors, one a line."""
        return bool(self.args) and isinstance(self.args[0], (Fault, NNBackendError))

    def spelled(self, spell: Callable[[Mention], str]) -> str:
        """Return the message with the mentioned options as `spell` writes them.

        >>> error = DataError("Row 3 has gaps. Drop it with ", Mention("missing", "drop"), ".")
        >>> error.spelled(lambda m: f"--{m.option} {m.value}")
        'Row 3 has gaps. Drop it with --missing drop.'
        """
        if self.is_several:
            each = (part.parts if isinstance(part, Fault) else part.args for part in self.args)
            return "\n".join(NNBackendError(*parts).spelled(spell) for parts in each)
        return "".join(spell(p) if isinstance(p, Mention) else str(p) for p in self.args)


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
smaller batch_size, fewer rows at once, a smaller network, float32, or device='cpu'.
        """
        of_total = f" of {total:,}" if total else ""
        facts = [
            f"{asked:,} bytes were asked for" if asked is not None else "",
            f"{free:,}{of_total} are free" if free is not None else "",
            cause.rstrip("."),
        ]
        known = ", ".join(filter(None, facts)) or "an allocation failed"
        return cls(
            f"{device} is out of memory: {known}. Use a smaller ", Mention("batch_size"), ", fewer "
            "rows at once, a smaller network, float32, or ", Mention("device", "cpu"),
            f".{cure and ' '}{cure}",
        )  # fmt: skip


class DeviceLostError(BackendError, RuntimeError):
    """Error of a failed device: every further call of this process would fail too.

    Files already written are complete: a new process resumes from the last checkpoint.
    """


class DeviceMismatchError(BackendError, TypeError):
    """Error for an array of another library or device than the network's."""


class ArgumentError(NNBackendError, ValueError):
    """Error for invalid options; `faults` has the parts of the message of each."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The invalid options, if the error is about options."""
        parts = [p.faults if isinstance(p, ArgumentError) else (p,) for p in self.args]
        return tuple(p for each in parts for p in each if isinstance(p, Fault))


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
