"""The program's own modules, and whether their files have changed since ranks imported them.

Layer: launch.
"""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig

__all__ = ["AppModules", "installed_folders"]


class AppModules:
    """Remembers date and size of the files behind the modules that are neither installed nor Python's."""

    def __init__(self) -> None:
        self._installed = installed_folders()
        self._seen = 0
        self._files: dict[str, tuple[int, int] | None] = {}
        self._look_for_more()

    def changed(self) -> list[str]:
        """Return the files that are not what they were; costs a ``stat`` for each that is watched."""
        if len(sys.modules) != self._seen:
            self._look_for_more()
        return [path for path, known in self._files.items() if _signature(path) != known]

    def _look_for_more(self) -> None:
        self._seen = len(sys.modules)
        for name, module in list(sys.modules.items()):
            path = getattr(module, "__file__", None)
            if name == "__main__" or not isinstance(path, str) or path.startswith(self._installed):
                continue
            path = os.path.abspath(path)
            if path not in self._files and not path.startswith(self._installed):
                self._files[path] = _signature(path)


@functools.cache
def installed_folders() -> tuple[str, ...]:
    """Return the folders of Python itself, of what is installed, and of klyng_mp; each ends with a slash."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update((site.getusersitepackages(), *site.getsitepackages()))  # the latter have also Debian's own
    folders.add(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return tuple(os.path.join(folder, "") for folder in folders if folder)


def _signature(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
