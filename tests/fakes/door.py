"""What all fakes of doors have in common."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """One question to a door. ``arguments``: by name, defaults too."""

    door: str
    method: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.door}.{self.method}"


class Door:
    """Record every call of a public method, and let fail those that the test wants to fail.

    ``calls``: in the order in which they began; doors may share one list, and the parts of a cloud do. ``fail``: by method, what
    its next calls raise instead of doing anything; ``fail_late``: what they raise after they have done it, as if the answer was
    lost. One entry a call, None for one that succeeds. ``down``: what every call raises.
    """

    name = "door"
    down: Exception | None = None

    def __init__(self, calls: list[Call] | None = None) -> None:
        self.calls: list[Call] = [] if calls is None else calls
        self.fail: dict[str, list[Exception | None]] = {}
        self.fail_late: dict[str, list[Exception | None]] = {}
        self._within = threading.local()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _recorded(method))

    def asked(self, method: str, *names: str) -> list[Any]:
        """Of each call of this door's method: the argument of that name, a tuple of several, or all of them by name."""
        found = [call.arguments for call in self.calls if (call.door, call.method) == (self.name, method)]
        if not names:
            return [dict(arguments) for arguments in found]
        return [arguments[names[0]] if len(names) == 1 else tuple(map(arguments.get, names)) for arguments in found]

    @property
    def methods(self) -> list[str]:
        """The methods of this door that were called, in this order."""
        return [call.method for call in self.calls if call.door == self.name]


def _recorded(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Door, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._within, "call", False):  # one that a door's method makes itself, `super` above all
            return method(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        self.calls.append(Call(self.name, method.__name__, dict(list(given.arguments.items())[1:])))
        _raise(self.down)
        _raise_next(self.fail, method.__name__)
        self._within.call = True
        try:
            answer = method(self, *args, **kwargs)
        finally:
            self._within.call = False
        _raise_next(self.fail_late, method.__name__)
        return answer

    return call


def _raise_next(errors: dict[str, list[Exception | None]], method: str) -> None:
    if errors.get(method):
        _raise(errors[method].pop(0))


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error
