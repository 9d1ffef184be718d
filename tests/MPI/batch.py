"""Runs programs of mpi4py one after the other in this rank, and writes what each printed.

Usage: batch.py PACKAGE FOLDER PROGRAM…, where the programs' import is made ``from PACKAGE import MPI``. The rank's
output is a list of (name, text) in FOLDER/RANK.json. A program that fails ends the job.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path

IMPORT = "from mpi4py import MPI"


def adapt(text, package):
    return text.replace(IMPORT, f"from {package} import MPI")


def main():
    package, folder, *programs = sys.argv[1:]
    space = {}
    exec(adapt(IMPORT, package), space)
    MPI = space["MPI"]
    found = []
    for program in programs:
        text = adapt(Path(program).read_text(encoding="utf-8"), package)
        printed = io.StringIO()
        failed = False
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(text, program, "exec"), {"__name__": "__main__"})
        except BaseException:
            failed = True
            traceback.print_exc(file=printed)
        found.append((Path(program).stem, printed.getvalue()))
        (Path(folder) / f"{MPI.COMM_WORLD.rank}.json").write_text(json.dumps(found))
        if failed:
            MPI.COMM_WORLD.Abort(3)


if __name__ == "__main__":
    main()
