"""``klyng-mp bundle``: what of a program would travel to other machines, and why.

Layer: cli; imported only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klyng_mp.remote.bundle import Bundle
    from klyng_mp.remote.sources import Sources
    from klyng_mp.remote.walk import Package

__all__ = ["render"]

_STAYING = 10  # so many files that stay are named; a package may have thousands


def render(sources: Sources, bundle: Bundle) -> str:
    """Return the list of what travels as text, one thing a line."""
    sizes = {packed.place: packed.size for packed in bundle.manifest.files}
    total, count = sum(sizes.values()), len(sizes)
    lines = [
        f"{count} {'file travels' if count == 1 else 'files travel'}: "
        f"{total} bytes, {len(bundle.data)} packed, digest {bundle.digest}",
        *_columns([(str(sizes[entry.place]), entry.path, entry.why) for entry in sources.entries]),
    ]
    if sources.packages:
        lines += ["", "has to be installed on each host, in the same version:"]
        lines += _columns(
            [(one.distribution or one.module, _version(one.version), _why(one)) for one in sources.packages]
        )
    if sources.missing:
        lines += ["", "is imported, but neither installed here nor the program's own:"]
        lines += _columns([(one.module, one.why) for one in sources.missing])
    if sources.stays:
        lines += ["", "stays here, as nobody lists it (--files):"]
        lines += [f"  {path}" for path in sources.stays[:_STAYING]]
        lines += [f"  and {len(sources.stays) - _STAYING} more"] if len(sources.stays) > _STAYING else []
    return "\n".join(lines)


def _version(version: str) -> str:
    return version or "of unknown version"


def _why(package: Package) -> str:
    return f"{package.why}; the program can do without" if package.optional else package.why


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return lines whose words stand below each other; numbers are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        words = [
            word.rjust(width) if word.isdecimal() else word.ljust(width)
            for word, width in zip(row, widths, strict=True)
        ]
        lines.append(f"  {'  '.join(words)}".rstrip())
    return lines
