"""How a fresh interpreter becomes a child process.

Layer: above process. It is the standard module's, under the same name here: there is one tree of processes.
"""

from __future__ import annotations

from multiprocessing.spawn import (
    WINEXE,
    WINSERVICE,
    _main,
    freeze_support,
    get_command_line,
    get_executable,
    get_preparation_data,
    import_main_path,
    is_forking,
    old_main_modules,
    prepare,
    set_executable,
    spawn_main,
)

__all__ = [
    "WINEXE",
    "WINSERVICE",
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "is_forking",
    "prepare",
    "set_executable",
    "spawn_main",
]
