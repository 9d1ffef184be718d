"""cli.parser: what each command line asks for, and the sentence that a wrong one gets."""

from __future__ import annotations

import pytest

from klyng_mp.cli import values
from klyng_mp.cli.pages import manual
from klyng_mp.cli.parser import (
    build_bundle_parser,
    build_doctor_parser,
    build_parser,
    build_run_parser,
    parse_bundle,
    parse_run,
    split,
)
from klyng_mp.machine import usable_cpus


@pytest.mark.parametrize(
    ("words", "kind", "target", "args"),
    [
        ("app.py", "script", "app.py", []),
        ("-n 4 app.py -n 5 --label -- x", "script", "app.py", ["-n", "5", "--label", "--", "x"]),
        ("-n 4 -- app.py -- x", "script", "app.py", ["--", "x"]),
        ("-- -odd.py x", "script", "-odd.py", ["x"]),
        ("-n 4 - x", "script", "-", ["x"]),
        ("-m package.module -m other -c code", "module", "package.module", ["-m", "other", "-c", "code"]),
        ("-mpackage.module -n 3", "module", "package.module", ["-n", "3"]),
        ("-m package -- --help", "module", "package", ["--", "--help"]),
        ("-c pass -h", "code", "pass", ["-h"]),
        ("-cpass", "code", "pass", []),
        ("-c -1", "code", "-1", []),
        ("app.py --help", "script", "app.py", ["--help"]),
        ("run", "script", "run", []),
    ],
)
def test_all_after_the_program_is_the_programs(words, kind, target, args):
    options = parse_run(words.split(" "))
    assert (options.kind, options.target, options.args) == (kind, target, args)


@pytest.mark.parametrize("form", ["-n 7", "-n7", "--num-processes 7", "--num-processes=7", "-n=7"])
def test_number_of_ranks(form):
    assert parse_run([*form.split(" "), "app.py"]).size == 7


def test_defaults():
    options = parse_run(["app.py"])
    assert (options.size, options.label, options.timeout, options.seed) == (usable_cpus(), False, None, None)
    assert (options.stats, options.stats_png, options.trace) == (False, None, None)


def test_every_option():
    options = parse_run(["--label", "--timeout", "2.5", "-n", "3", "--seed", "-7", "app.py"])
    assert (options.size, options.label, options.timeout, options.seed) == (3, True, 2.5, -7)
    assert parse_run(["--timeout=0", "app.py"]).timeout == 0


def test_options_that_say_where_the_time_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(values, "can_draw", lambda: True)
    options = parse_run(["--stats", "--trace", f"{tmp_path}/t.json", "app.py", "--trace", "its own"])
    assert (options.stats, options.stats_png, options.trace) == (True, None, f"{tmp_path}/t.json")
    assert options.args == ["--trace", "its own"]
    options = parse_run([f"--stats-png={tmp_path}/h.png", "app.py"])
    assert (options.stats, options.stats_png, options.trace) == (True, f"{tmp_path}/h.png", None)
    monkeypatch.setattr(values, "can_draw", lambda: False)
    assert parse_run(["--stats", "app.py"]).stats


def test_a_picture_needs_matplotlib(monkeypatch, capsys):
    monkeypatch.setattr(values, "can_draw", lambda: False)
    with pytest.raises(SystemExit) as caught:
        parse_run(["--stats-png", "h.png", "app.py"])
    assert caught.value.code == 2
    assert "--stats-png: a heat map needs matplotlib: pip install 'klyng_mp[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-n", "0", "app.py"], "-n 0 is too small: a program needs at least 1 rank"),
        (["-n", "-3", "app.py"], "-n -3 is too small"),
        (["-n", "four", "app.py"], "-n needs a whole number of ranks, not 'four': for example -n 4"),
        (["-n", "2.5", "app.py"], "not '2.5'"),
        (["-n", "", "app.py"], "not ''"),
        (["-n", "-x", "app.py"], "not '-x'"),
        (["-n", "app.py"], "there is nothing to run"),
        (["-n"], "expected one argument"),
        (["--timeout", "-1", "app.py"], "--timeout -1 is no span of time"),
        (["--timeout", "nan", "app.py"], "--timeout nan is no span of time"),
        (["--timeout", "soon", "app.py"], "--timeout needs a number of seconds, not 'soon'"),
        (["--seed", "1.5", "app.py"], "--seed needs a whole number, not '1.5'"),
        (["--trace", "/", "app.py"], "--trace / is a folder, and a file is needed"),
        (["--trace", "/no/such/folder/t.json", "app.py"], "cannot be written: there is no folder /no/such/folder"),
        (["--trace", "", "app.py"], "--trace needs the name of a file"),
        (["--trace"], "expected one argument"),
        (["--stats=3", "app.py"], "ignored explicit argument '3'"),
        (["--lable", "app.py"], "unrecognized arguments: --lable"),
        (["--lab", "app.py"], "unrecognized arguments: --lab"),
        (["-x", "app.py"], "unrecognized arguments: -x"),
        ([], "there is nothing to run: give a script, -m MODULE or -c CODE"),
        (["-n", "4"], "there is nothing to run"),
        (["--"], "there is nothing to run"),
        (["-m"], "-m needs a value"),
        (["-c"], "-c needs a value"),
        ([""], "the program's name is empty"),
        (["-m", "hosts.toml"], "there is nothing to run"),
        (["-m", "a.json", "-mb.json", "app.py"], "two machines files are named, a.json and b.json"),
        (["-m", "a.json", "--trace", "t.json", "app.py"], "--trace tells of ranks of this machine only"),
        (["--files", "x", "app.py"], "--files, --plain and --dry-run have a meaning only with --machines"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(capsys, words, sentence):
    with pytest.raises(SystemExit) as caught:
        parse_run(words)
    assert caught.value.code == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith("klyng-mp: error: ")
    assert written.err.endswith("(see klyng-mp run --help)\n")
    assert written.err.count("\n") == 1
    assert sentence in written.err


def test_empty_code_is_a_program_as_it_is_for_python():
    options = parse_run(["-c", "", "x"])
    assert (options.kind, options.target, options.args) == ("code", "", ["x"])


def test_split_keeps_every_word():
    assert split(["-n", "4", "--label", "app.py", "--", "1"]) == (["-n4", "--label"], "", "app.py", ["--", "1"])
    assert split(["--timeout", "-m", "app.py"]) == (["--timeout=-m"], "", "app.py", [])
    assert split(["-n", "4"]) == (["-n4"], None, None, [])


@pytest.mark.parametrize(
    "words", [["-m", "hosts.json"], ["-mhosts.json"], ["-H", "hosts.json"], ["--machines=hosts.json"]]
)
def test_a_machines_file(words):
    options = parse_run(["-n", "3", *words, "--files", "a", "--files=b", "--plain", "app.py", "-m", "x.json"])
    assert (options.hosts, options.size, options.target) == ("hosts.json", 3, "app.py")
    assert (options.args, options.files, options.encrypt) == (["-m", "x.json"], ["a", "b"], False)
    assert parse_run([*words, "-m", "pkg.mod"]).size is None
    assert parse_run(["app.py"]).hosts is None


def test_what_travels_is_asked_like_what_runs(tmp_path):
    options, files, output = parse_bundle(["--files", "a", "--files=b", "-o", f"{tmp_path}/x", "-m", "m", "-o", "its"])
    assert (options.kind, options.target, options.args) == ("module", "m", ["-o", "its"])
    assert (files, output) == (["a", "b"], f"{tmp_path}/x")
    assert parse_bundle(["app.py"])[1:] == ([], None)
    assert parse_bundle(["app.py"])[1] is not parse_bundle(["app.py"])[1]
    assert parse_bundle(["--files", "-x", "app.py"])[1] == ["-x"]


@pytest.mark.parametrize("build", [build_parser, build_run_parser, build_doctor_parser, build_bundle_parser])
def test_every_parser_is_a_manual_page(build):
    parser = build()
    pages = {page_parser.prog: name for name, (_, page_parser) in manual().items()}
    assert pages[parser.prog] == parser.prog.replace(" ", "-")
    blocks = parser.epilog.split("\n\n")
    assert all(block.split("\n")[0].endswith(":") for block in blocks), "setup.py makes a section of each block"


@pytest.mark.parametrize("name", list(manual()))
def test_help_says_what_one_needs(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = manual()[name][1].format_help()
    assert max(map(len, text.splitlines())) <= 80
    if name == "klyng-mp-run":
        for word in (
            "exit codes:",
            "environment:",
            "examples:",
            "--label",
            "--timeout",
            "--seed",
            "--stats",
            "--trace",
            "-m MODULE",
            "124",
        ):
            assert word in text
    if name == "klyng-mp":
        assert "doctor" in text
        assert "examples:" in text
