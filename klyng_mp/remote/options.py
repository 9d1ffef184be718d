"""How a beacon was set up: the keys of its ``beacon.toml``.

Layer: remote; reads one file. Parsed once, into a record that does not change.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from klyng_mp.errors import BeaconError
from klyng_mp.remote.hosts import DEFAULT_PORT

if TYPE_CHECKING:
    from klyng_mp.remote.home import Home

__all__ = ["BeaconOptions", "parse_options", "read_options"]

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(rf"(\d{{1,15}}) ?({'|'.join(_UNITS)})")
_NO_LIMIT = 2**63 - 1


class BeaconOptions(NamedTuple):
    """What a beacon lets others do.

    Attributes:
        host: the address that it listens at; loopback until the user says otherwise. Empty for all there are.
        port: its one port; 0 for any that is free.
        max_jobs: how many jobs at once.
        max_ranks: how many ranks in all of them together.
        max_bundle_bytes: how large the program of a job may be, packed; unpacked it may be ten times that.
        max_job_seconds: how long a job may last; None for no limit.
        max_rank_memory_bytes: the memory of one rank; None for no limit.
        cache_bytes: how much room bundles may take that are kept for the next job.
        max_unauthenticated: how many connections may be at logging in at once.
        grace_seconds: how long each of them may take for it.
        log_bytes: how large its log may be.
        log_files: how many older ones are kept besides.
        allow_plaintext: whether jobs that ask for it may send data between ranks unencrypted.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    max_jobs: int = 16
    max_ranks: int = 256
    max_bundle_bytes: int = 256 << 20
    max_job_seconds: float | None = None
    max_rank_memory_bytes: int | None = None
    cache_bytes: int = 1 << 30
    max_unauthenticated: int = 100
    grace_seconds: float = 10.0
    log_bytes: int = 4 << 20
    log_files: int = 3
    allow_plaintext: bool = False


# The least and the most of each number.
_BOUNDS: dict[str, tuple[float, float]] = {
    "port": (0, 65535),
    "max_jobs": (1, 10_000),
    "max_ranks": (1, 1_000_000),
    "max_bundle_bytes": (1 << 10, _NO_LIMIT),
    "max_job_seconds": (1, _NO_LIMIT),
    "max_rank_memory_bytes": (16 << 20, _NO_LIMIT),
    "cache_bytes": (0, _NO_LIMIT),
    "max_unauthenticated": (1, 10_000),
    "grace_seconds": (1, 600),
    "log_bytes": (4 << 10, _NO_LIMIT),
    "log_files": (1, 1000),
}


def read_options(home: Home) -> BeaconOptions:
    """Return what ``beacon.toml`` says, with defaults for what it does not; all defaults if there is no such file.

    Raises:
        BeaconError: there is something wrong with it; the message names file, line and key.
    """
    return parse_options(home.read(home.options), home.options)


def parse_options(text: str, path: str) -> BeaconOptions:
    """Return what a text of TOML says; ``path`` is what messages call it.

    Raises:
        BeaconError: there is something wrong with it.
    """
    try:
        table = tomllib.loads(text)
    except (RecursionError, ValueError) as error:  # a number of thousands of digits is a plain ValueError
        raise BeaconError(f"{path} is not TOML: {error}; write lines like max_ranks = 64") from None
    values = {}
    for key, value in table.items():
        where = f"{path}{_line_of(text, key)}"
        if key not in BeaconOptions._fields:
            near = difflib.get_close_matches(key, BeaconOptions._fields, 1)
            wanted = f"write {near[0]}" if near else f"there are {', '.join(BeaconOptions._fields)}"
            raise BeaconError(f"{where}: {key!r} means nothing here: {wanted}")
        values[key] = _checked(where, key, value)
    return BeaconOptions(**values)


def _line_of(text: str, key: str) -> str:
    """Return ", line N" of the line that seems to set a key; tomllib does not tell."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
    return f", line {lines[0]}" if lines else ""


def _checked(where: str, key: str, value: Any) -> Any:
    if key == "allow_plaintext":
        if type(value) is not bool:
            raise BeaconError(f"{where}: {key} is {_shown(value)}: write true or false")
        return value
    if key == "host":
        if not isinstance(value, str) or not value.isprintable() or " " in value:
            raise BeaconError(f'{where}: {key} is {_shown(value)}: write an address in quotes, as in "0.0.0.0"')
        return value
    if key.endswith("_bytes") and isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(match[1]) * _UNITS[match[2]]
    least, most = _BOUNDS[key]
    number = (int, float) if key.endswith("_seconds") else (int,)
    # NaN is not at least anything.
    if isinstance(value, bool) or not isinstance(value, number) or not least <= value <= most:
        kind = 'a size, as 1048576 or "1 MiB",' if key.endswith("_bytes") else "a number"
        bound = "" if most == _NO_LIMIT else f" to {most}"
        raise BeaconError(f"{where}: {key} is {_shown(value)}: write {kind} from {least}{bound}")
    return float(value) if key.endswith("_seconds") else value


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except ValueError:  # Python does not write numbers of thousands of digits
        return "a number without end"
