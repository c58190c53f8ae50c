"""Compiles functions for a GPU with torch.compile, with one kind of error for every failure."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from bench.schema import DrsowError

VARIANTS = 256
"""Times that one function may be compiled: each shape of heads, scale, window, trunk, dtype and device is one."""


def _compile_errors() -> tuple[type[Exception], ...]:
    """What torch.compile raises where it cannot trace (the first), or a compiler is missing or fails (the second).

    Imported here, because the compiler's modules take a second to import and a CPU does not need them.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    return TorchDynamoException, InductorError


class NotCompiledError(DrsowError):
    """A function does not compile on this machine."""

    def __init__(self, part: str, error: Exception) -> None:
        """Takes the function's name. The reason is the first line of the error that says more than who raised it."""
        lines = [line for line in str(error).splitlines() if line and not line.endswith("raised:")]
        reason = (lines or [type(error).__name__])[0]
        super().__init__(f"{part} does not compile here ({reason})")
        self.part = part


def compiled(function: Callable[..., Tensor], part: str, **options: object) -> Callable[..., Tensor]:
    """A function that torch compiles on its first call, once for all lengths.

    Args:
        function: A function of tensors.
        part: Name of the function in error messages.
        options: Options of torch.compile.
    """
    dynamo = torch._dynamo.config
    # A setting of the whole process: torch 2.11 has none for one function.
    dynamo.recompile_limit = max(dynamo.recompile_limit, VARIANTS)
    # Beyond the limit torch would go on without compiling, slowly, and with other roundings under the same name.
    dynamo.fail_on_recompile_limit_hit = True
    # A scale or a soft cap is a constant of the kernel: as an argument it does not compile.
    dynamo.specialize_float = True
    return caught(torch.compile(function, dynamic=True, **options), part)


def caught(function: Callable[..., Tensor], part: str) -> Callable[..., Tensor]:
    """A compiled function that raises NotCompiledError if it does not compile."""

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> Tensor:
        try:
            return function(*args, **kwargs)
        except _compile_errors() as error:
            raise NotCompiledError(part, error) from error

    return call
