"""A program that ranks of several hosts run as their ``__main__``: what ``klyng-mp run`` with a machines file calls.

Layer: remote; imported by ranks.
"""

from __future__ import annotations

import sys

from klyng_mp.launch.program import ProgramOptions, load

__all__ = ["ProgramExit", "execute_program"]


class ProgramExit(Exception):  # noqa: N818 - it is how a program ends
    """A rank's program has ended with this exit code, which is not 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def execute_program(kind: str, target: str, args: list[str]) -> None:
    """Run a program in this rank; its script is ``sys.argv[0]``, wherever it lies on this host.

    Raises:
        ProgramExit: it has called ``sys.exit`` with another code than 0.
        BaseException: whatever it raises.
    """
    options = ProgramOptions(kind, sys.argv[0] if kind == "script" else target, args)  # type: ignore[arg-type]
    program = load(options)
    if kind == "script":
        program.argv[0] = target
    try:
        program.execute()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        if error.code:
            raise ProgramExit(error.code & 0xFF if isinstance(error.code, int) else 1) from None
