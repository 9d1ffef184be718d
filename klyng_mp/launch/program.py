"""The program that ``klyng-mp run`` was given: found and compiled once, then run as ``__main__``.

Layer: launch; imports only errors.

The command calls `load` before it forks, so that a name that is mistyped or a syntax error is said
once and not by every rank; each rank then calls `Program.execute`. What a program can see of how it
was started (``sys.argv``, ``sys.path[0]``, the attributes of ``__main__``) is what ``python`` shows it.
Nothing of the program runs before `Program.execute`: not even the package of a module is imported.
"""

from __future__ import annotations

import builtins
import os
import sys
from importlib.machinery import BuiltinImporter, PathFinder, SourceFileLoader, SourcelessFileLoader
from typing import TYPE_CHECKING, Any, Literal

from klyng_mp.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from traceback import StackSummary, TracebackException
    from types import CodeType, ModuleType, TracebackType

    from klyng_mp.launch.launched import Launched

__all__ = ["Program", "ProgramError", "ProgramOptions", "format_user_traceback", "is_ours", "load", "summarize"]


class ProgramError(LaunchError):
    """The program to run cannot be found or read; say where it is."""


class ProgramOptions:
    """What the command line asked for.

    Args:
        kind: what `target` is.
        target: the script's path, the module's name, or the code itself.
        args: the words after it; they are the program's.
        size: the number of ranks; ``None`` for as many as the hosts have places.
        label: begin each line of output with the rank that wrote it.
        timeout: seconds after which all is ended; ``None`` for no limit.
        seed: what the ranks' random generators start from; ``None`` for a new one each time.
        stats: say at the end where the time went.
        stats_png: the file for a picture of that, or ``None``.
        trace: the file for a trace, or ``None``.
        hosts: the machines file; ``None`` for this machine.
        files: patterns of files that travel with the program.
        encrypt: whether what ranks say to those of other hosts is encrypted.
        dry_run: only list what would travel.
        green: the ranks take turns in the command's own process.
        schedule: the seed by which chance chooses among them; ``None`` for no chance.
        explore: how many schedules to try, from that one or 0 on; 0 for a single run.
        launched: what has started this process as one rank of several; ``None`` if nothing has.
    """

    __slots__ = (
        "args", "dry_run", "encrypt", "explore", "files", "green", "hosts", "kind", "label", "launched", "schedule",
        "seed", "size", "stats", "stats_png", "target", "timeout", "trace",
    )  # fmt: skip

    def __init__(
        self,
        kind: Literal["script", "module", "code"],
        target: str,
        args: Sequence[str] = (),
        *,
        size: int | None = 1,
        label: bool = False,
        timeout: float | None = None,
        seed: int | None = None,
        stats: bool = False,
        stats_png: str | None = None,
        trace: str | None = None,
        hosts: str | None = None,
        files: Sequence[str] = (),
        encrypt: bool = True,
        dry_run: bool = False,
        green: bool = False,
        schedule: int | None = None,
        explore: int = 0,
        launched: Launched | None = None,
    ) -> None:
        self.kind = kind
        self.target = target
        self.args = list(args)
        self.size = size
        self.label = label
        self.timeout = timeout
        self.seed = seed
        self.stats = stats
        self.stats_png = stats_png
        self.trace = trace
        self.hosts = hosts
        self.files = list(files)
        self.encrypt = encrypt
        self.dry_run = dry_run
        self.green = green
        self.schedule = schedule
        self.explore = explore
        self.launched = launched


class Program:
    """A program that was found; `load` makes it, each rank executes it.

    Attributes:
        name: what the program would be called in a sentence.
        argv: ``sys.argv`` as it will see it.
        path0: the folder its imports look in first.
    """

    __slots__ = ("_code", "_module", "_names", "_source", "argv", "name", "path0")

    def __init__(self, name: str, argv: list[str], path0: str, code: CodeType | None, names: dict[str, Any]) -> None:
        self.name = name
        self.argv = argv
        self.path0 = path0
        self._code = code
        self._names = names
        self._module: str | None = None  # the module to look up again once its package is imported
        self._source: str | None = None  # of -c, which no file holds

    def execute(self) -> None:
        """Run the program in this process as its ``__main__``, as ``python`` would.

        Raises:
            BaseException: whatever the program raises, ``SystemExit`` among it.
        """
        main = self._enter()
        code, names = self._code, self._names
        if self._module is not None:
            sys.argv[0] = "-m"  # so it is while the packages above the module are imported
            code, names = self._resolve(self._module)
            sys.argv[0] = names["__file__"]
        if self._source is not None and code is not None:
            _remember_source(code, self._source.splitlines())
        main.__dict__.update(names)
        exec(code, main.__dict__)  # type: ignore[arg-type] # noqa: S102 (running it is what was asked for)

    def _enter(self) -> ModuleType:
        # safe_path (python -P) leaves out the entry of ours that the program's takes the place of;
        # a folder or zip file that is run as a program is put there even so.
        container = self._names.get("__package__") == ""
        if not sys.flags.safe_path:
            sys.path[0:1] = [self.path0]
        elif container:
            sys.path.insert(0, self.path0)
        sys.argv = list(self.argv)
        main = type(sys)("__main__")
        main.__dict__["__builtins__"] = builtins
        if sys.version_info < (3, 14):
            main.__annotations__ = {}
        sys.modules["__main__"] = main
        return main

    def _resolve(self, name: str) -> tuple[CodeType, dict[str, Any]]:
        package = name.rpartition(".")[0]
        path = None
        if package:
            __import__(package)
            path = sys.modules[package].__path__
            existing = sys.modules.get(name)
            if existing is not None and not hasattr(existing, "__path__"):
                _warn_of_second_copy(name, package)
        spec = _find_spec(name, path)
        if spec is None:
            raise ImportError(f"No module named {name}", name=name)
        if spec.submodule_search_locations is not None:
            return self._resolve(_main_of(spec))
        known = self._code if spec.origin == self._names.get("__file__") else None
        return known or _code_of(spec), _names_of(spec)


def load(options: ProgramOptions) -> Program:
    """Find the program and compile it; run nothing of it.

    Raises:
        ProgramError: it cannot be found or read.
        SyntaxError: it is no valid Python.
    """
    if options.kind == "script":
        program = _load_script(options.target)
    elif options.kind == "module":
        program = _load_module(options.target)
    else:
        program = _load_code(options.target)
    program.argv = [program.argv[0], *options.args]
    return program


def format_user_traceback(error: BaseException) -> str:
    """Return the traceback of ``error`` as text, beginning where the user's own code begins.

    The frames of klyng_mp and of the import machinery that lead there are left out; those further
    in stay, since they say which call failed. Lines of ``-c`` code are shown like those of a file.
    """
    import traceback  # noqa: PLC0415 (needed only when something failed)

    trace = _users_part(error.__traceback__)
    report = traceback.TracebackException(type(error), error, trace, compact=True)
    if _source_of_code:
        _show_source(report, error, trace)
    return "".join(report.format())


# -- scripts, folders and zip files ----------------------------------------------------------------


def summarize(error: BaseException) -> str:
    """Return one line that says what an exception is, whatever its ``__str__`` does."""
    name = type(error).__qualname__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - any class may be behind it
        text = "(its text cannot be made)"
    first = text.strip().partition("\n")[0]
    return f"{name}: {first}" if first else name


def _load_script(target: str) -> Program:
    filename = os.path.join(os.getcwd(), target)  # python does not normalise it either
    if target == "-":
        raise ProgramError("a script cannot be read from standard input, which is rank 0's: save it, or use -c CODE")
    if not os.path.exists(filename):
        raise ProgramError(_explain_missing(target))
    if os.path.isdir(filename) or _is_zip(filename):
        return _load_container(target, filename)
    loader: SourceFileLoader | SourcelessFileLoader
    try:
        if filename.endswith(".pyc"):
            loader = SourcelessFileLoader("__main__", filename)
            code = loader.get_code("__main__")
        else:
            loader = SourceFileLoader("__main__", filename)
            code = _compile(loader.get_data(filename), filename)
    except OSError as error:
        raise ProgramError(f"cannot read {target!r}: {error.strerror or error}") from None
    except ImportError as error:  # of a .pyc from another Python
        raise ProgramError(f"cannot run {target!r}: {error}; compile it with this Python") from None
    names = {
        "__doc__": None,
        "__package__": None,
        "__loader__": loader,
        "__spec__": None,
        "__file__": filename,
        "__cached__": None,
    }
    return Program(target, [target], os.path.dirname(os.path.realpath(filename)), code, names)


def _load_container(target: str, filename: str) -> Program:
    spec = PathFinder.find_spec("__main__", [filename])
    if spec is None or spec.loader is None:
        what = "folder" if os.path.isdir(filename) else "zip file"
        raise ProgramError(f"{target!r} is a {what} without a __main__.py, so there is nothing to run: name a script")
    return Program(target, [target], filename, _code_of(spec), _names_of(spec))


def _is_zip(filename: str) -> bool:
    from zipimport import ZipImportError, zipimporter  # noqa: PLC0415 (loaded by Python itself; the name is not)

    try:
        zipimporter(filename)
    except ZipImportError:
        return False
    return True


def _compile(source: bytes | str, filename: str) -> CodeType:
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except ValueError as error:  # null bytes: Python 3.12 made them a SyntaxError
        raise SyntaxError(str(error), (filename, None, None, None)) from None


def _explain_missing(target: str) -> str:
    import difflib  # noqa: PLC0415 (only on the way to an error)

    folder, name = os.path.split(target)
    where = folder or os.getcwd()
    if not os.path.isdir(where):
        return f"the script {target!r} does not exist, and neither does the folder {where!r}"
    try:
        names = sorted(n for n in os.listdir(where) if n.endswith(".py") or os.path.isdir(os.path.join(where, n)))
    except OSError:
        names = []
    close = [os.path.join(folder, match) for match in difflib.get_close_matches(name, names, n=3)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"no name in {where!r} is like it"
    return f"the script {target!r} does not exist: {hint}"


# -- modules ---------------------------------------------------------------------------------------


def _load_module(name: str) -> Program:
    spec = _find_unimported(name)
    if spec is None:  # only where a package computes its __path__: the ranks will know
        program = Program(name, ["-m"], os.getcwd(), None, {})
    else:
        program = Program(name, ["-m"], os.getcwd(), _code_of(spec), _names_of(spec))
    program._module = name  # noqa: SLF001 (same module)
    return program


def _find_unimported(name: str) -> ModuleSpec | None:
    """Look a module up as ``python -m`` does, but import none of the packages above it."""
    saved = sys.path[:]
    if not sys.flags.safe_path:
        sys.path[0:1] = [os.getcwd()]
    try:
        return _walk_to(name)
    finally:
        sys.path[:] = saved


def _walk_to(name: str) -> ModuleSpec | None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ProgramError(f"{name!r} is no module's name: give it as in an import, like package.module")
    place = repr(os.getcwd())
    spec: ModuleSpec | None = None
    for part in name.split("."):
        package = spec
        if package is None:
            spec = _find_spec(part, None)
        elif package.submodule_search_locations is None:
            raise ProgramError(_explain_no_package(name, package.name))
        else:
            spec = _find_spec(f"{package.name}.{part}", package.submodule_search_locations)
        if spec is None:
            if package is not None and _makes_modules(package):
                return None
            raise ProgramError(f"there is no module named {name!r}, neither installed nor in {place}")
    if spec is None or spec.submodule_search_locations is None:
        return spec
    main = _find_spec(_main_of(spec), spec.submodule_search_locations)
    if main is None and not _makes_modules(spec):
        raise ProgramError(f"{name!r} is a package without a __main__, so there is nothing to run: name a module in it")
    return main


def _makes_modules(package: ModuleSpec) -> bool:
    """Tell whether the package's own code, once it is run, may know of modules that cannot be seen before."""
    get_source = getattr(package.loader, "get_source", None)
    source = get_source(package.name) if get_source else ""
    return source is None or "__path__" in source or "sys.modules" in source


def _explain_no_package(name: str, found: str) -> str:
    if name == f"{found}.py":
        return f"{name!r} is a file's name: use -m {found}, or give {name} as the script, without -m"
    return f"there is no module named {name!r}: {found!r} is a module, not a package"


def _find_spec(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    places = None if path is None else list(path)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, places)
        if spec is not None:
            return spec
    return None


def _main_of(package: ModuleSpec) -> str:
    return f"{package.name}.__main__"


def _code_of(spec: ModuleSpec) -> CodeType:
    get_code = getattr(spec.loader, "get_code", None)
    code: CodeType | None = get_code(spec.name) if get_code else None
    if code is None:
        raise ProgramError(f"the module {spec.name!r} cannot be run: it is not written in Python")
    return code


def _names_of(spec: ModuleSpec) -> dict[str, Any]:
    return {
        "__doc__": None,
        "__package__": spec.parent,
        "__loader__": spec.loader,
        "__spec__": spec,
        "__file__": spec.origin,
        "__cached__": spec.cached,
    }


def _warn_of_second_copy(name: str, package: str) -> None:
    import warnings  # noqa: PLC0415 (rare)

    warnings.warn(
        f"{name!r} found in sys.modules after import of package {package!r}, but prior to execution of "
        f"{name!r}; this may result in unpredictable behaviour",
        RuntimeWarning,
        stacklevel=2,
    )


# -- code given on the command line ----------------------------------------------------------------

# Which line belongs to which code object of -c. Not linecache: under the name "<string>" it would also
# show these lines for every other piece of code without a file, such as a dataclass's __init__.
_source_of_code: dict[CodeType, list[str]] = {}


def _load_code(source: str) -> Program:
    code = _compile(source, "<string>")
    names = {"__doc__": None, "__package__": None, "__loader__": BuiltinImporter, "__spec__": None}
    program = Program("-c", ["-c"], "", code, names)
    program._source = source  # noqa: SLF001 (same module)
    return program


def _remember_source(code: CodeType, lines: list[str]) -> None:
    _source_of_code[code] = lines
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            _remember_source(constant, lines)


def _show_source(report: TracebackException, error: BaseException, trace: TracebackType | None) -> None:
    _fill(report.stack, trace)
    for name in ("__cause__", "__context__"):
        inner_report, inner = getattr(report, name), getattr(error, name)
        if inner_report is not None and inner is not None:
            _show_source(inner_report, inner, inner.__traceback__)


def _fill(stack: StackSummary, trace: TracebackType | None) -> None:
    import traceback  # noqa: PLC0415 (needed only when something failed)

    for position, frame in enumerate(stack):
        if trace is None:
            return
        lines = _source_of_code.get(trace.tb_frame.f_code)
        if lines is not None and frame.lineno is not None and 0 < frame.lineno <= len(lines):
            stack[position] = traceback.FrameSummary(
                frame.filename,
                frame.lineno,
                frame.name,
                lookup_line=False,
                line=lines[frame.lineno - 1],
                end_lineno=frame.end_lineno,
                colno=frame.colno,
                end_colno=frame.end_colno,
            )
        trace = trace.tb_next


def _users_part(whole: TracebackType | None) -> TracebackType | None:
    trace = whole
    while trace is not None and trace.tb_frame.f_code is not Program.execute.__code__:
        trace = trace.tb_next
    trace = trace or whole  # a function that was sent has no program around it
    while trace is not None and is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace or whole


_OUR_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def is_ours(filename: str) -> bool:
    """Tell by the name of its file whether code is of klyng_mp, or of what Python itself puts around a program."""
    return filename.startswith((_OUR_FOLDER, "<frozen ")) or filename.endswith(f"{os.sep}runpy.py")
