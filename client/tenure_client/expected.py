"""What LangGraph expects of a saver or store beside its methods."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def inspected(method: T) -> T:
    """Keep the signature of a method that LangGraph asks for with each run, which takes 10 us to find out."""
    vars(method)["__signature__"] = inspect.signature(method)
    return method


class Done:
    """Already done, and may be awaited."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield
