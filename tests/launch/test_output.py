"""launch.output: lines arrive whole, all of them, in each rank's order, whoever reads them and however slowly."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import signal
import socket

import programs
import pytest
import rankwork

import klyng_mp as mp
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.output import Output, Sink

LINES = 1000


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


def turn(loop, seconds=0.0):
    """Let the loop do what is due, and no more."""
    loop.call_later(seconds, lambda: None)
    loop.turn()


class Streams:
    """An Output whose sinks collect, and the writing ends of its ranks' pipes."""

    def __init__(self, loop, ranks=2, label=None, prompt_rank=None):
        self.loop = loop
        self.written = {"out": [], "err": []}
        sinks = [Sink(loop, self.written[name].append) for name in ("out", "err")]
        self.output = Output(loop, *sinks, label=label, prompt_rank=prompt_rank)
        self.ends = []
        for rank in range(ranks):
            out, out_end = os.pipe()
            err, err_end = os.pipe()
            self.output.attach(rank, out, err)
            self.ends.append((out_end, err_end))

    def write(self, rank, data, stream=0):
        os.write(self.ends[rank][stream], data)
        turn(self.loop)

    def close(self):
        for rank, ends in enumerate(self.ends):
            for end in ends:
                os.close(end)
            self.output.detach(rank)

    @property
    def out(self):
        return b"".join(self.written["out"])

    @property
    def err(self):
        return b"".join(self.written["err"])


@pytest.fixture
def streams(loop):
    made = []

    def make(**options):
        made.append(Streams(loop, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# -- lines -------------------------------------------------------------------------------------------


def test_a_line_is_forwarded_when_it_is_whole(streams):
    one = streams()
    one.write(0, b"half a li")
    one.write(1, b"whole\n")
    assert one.out == b"whole\n"
    one.write(0, b"ne\nand mo")
    assert one.out == b"whole\nhalf a line\n"
    assert one.err == b""


def test_the_two_streams_stay_apart(streams):
    one = streams()
    one.write(0, b"result\n")
    one.write(0, b"warning\n", stream=1)
    assert (one.out, one.err) == (b"result\n", b"warning\n")


def test_the_last_line_needs_no_end(streams):
    one = streams()
    one.write(0, b"no newline")
    one.output.drain(0)
    assert one.out == b"no newline"
    one.write(1, b"another\n")
    assert one.out == b"no newline\nanother\n"  # not in the middle of the other's


def test_the_same_rank_goes_on_with_its_own_line(streams):
    one = streams()
    one.write(0, b"begin")
    one.output.drain(0)
    one.write(0, b" and end\n")
    assert one.out == b"begin and end\n"


def test_the_rank_with_the_terminal_shows_its_prompt_at_once(streams):
    one = streams(prompt_rank=0)
    one.write(0, b"(Pdb) ")
    one.write(1, b"not yet")
    assert one.out == b"(Pdb) "


def test_each_line_is_labelled(streams):
    one = streams(label=lambda rank: f"[{rank}@host] ")
    one.write(1, b"one\ntwo\n\nhal")
    one.write(0, b"\xff\n", stream=1)
    assert one.out == b"[1@host] one\n[1@host] two\n[1@host] \n"
    assert one.err == b"[0@host] \xff\n"


def test_an_endless_line_is_forwarded_too(streams):
    one = streams()
    for _ in range(4):
        one.write(0, b"x" * 40_000)
    assert len(one.out) > 60_000


def test_the_last_words_are_kept_for_the_error(loop):
    one = Streams(loop, ranks=1)
    for number in range(100):
        one.write(0, f"line {number}\n".encode(), stream=1)
    one.write(0, b"the end", stream=1)
    for end in one.ends[0]:
        os.close(end)
    tail = one.output.detach(0).splitlines()
    assert tail[-2:] == ["line 99", "the end"]
    assert 5 <= len(tail) <= 50
    assert one.err.startswith(b"line 0\n")
    assert one.err.endswith(b"line 99\nthe end")


# -- readers -------------------------------------------------------------------------------------------


def test_a_slow_reader_gets_everything_in_time(loop):
    ours, theirs = socket.socketpair()
    sink = Sink(loop, ours.detach())
    data = b"".join(b"line %d\n" % number for number in range(200_000))
    for begin in range(0, len(data), 50_000):
        sink.write(0, data[begin : begin + 50_000])
    assert sink.full
    got = bytearray()
    while len(got) < len(data):
        turn(loop)
        got += theirs.recv(1 << 16)
    assert bytes(got) == data
    turn(loop)
    assert sink.empty
    assert not sink.full
    sink.close()
    theirs.close()


def test_ranks_wait_for_a_slow_reader_and_go_on_after_it(loop):
    ours, theirs = socket.socketpair()
    sink = Sink(loop, ours.detach())
    nothing = Sink(loop, lambda data: None)
    output = Output(loop, sink, nothing, label=None, prompt_rank=None)
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    output.attach(0, out, err)
    os.set_blocking(out_end, False)
    written, stuck = 0, 0
    while stuck < 5:
        try:
            written += os.write(out_end, b"x" * 1023 + b"\n")
            stuck = 0
        except BlockingIOError:
            stuck += 1
        turn(loop)
    assert written < 5_000_000  # it was made to wait, rather than memory filled
    os.close(out_end)
    got = 0
    while got < written:
        got += len(theirs.recv(1 << 16))
        turn(loop)
    assert got == written
    os.close(err_end)
    output.detach(0)
    sink.close()
    theirs.close()


def test_a_reader_that_is_gone_lets_the_ranks_next_write_fail(loop):
    previous = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    read_end, write_end = os.pipe()
    sink = Sink(loop, write_end)
    output = Output(loop, sink, Sink(loop, lambda data: None), label=None, prompt_rank=None)
    out, out_end = os.pipe()
    err, err_end = os.pipe()
    output.attach(0, out, err)
    os.close(read_end)
    try:
        with pytest.raises(BrokenPipeError):  # noqa: PT012 - which of the writes is not foreseen
            for _ in range(100):
                os.write(out_end, b"line\n")
                turn(loop)
    finally:
        signal.signal(signal.SIGPIPE, previous)
    assert sink.broken
    os.close(out_end)
    os.close(err_end)
    output.detach(0)
    sink.close()


def test_a_broken_sink_takes_no_more(loop):
    read_end, write_end = os.pipe()
    sink = Sink(loop, write_end)
    os.close(read_end)
    sink.write(0, b"x\n")
    assert sink.broken
    sink.write(0, b"y\n")
    assert sink.empty
    sink.close()


def test_a_sink_does_not_change_how_its_descriptor_is_for_others(loop):
    read_end, write_end = os.pipe()
    sink = Sink(loop, os.dup(write_end))
    sink.write(0, b"x" * 100_000)
    assert os.get_blocking(write_end)
    assert len(os.read(read_end, 1 << 20)) > 0
    sink.close()
    os.close(read_end)
    os.close(write_end)


# -- ranks ------------------------------------------------------------------------------------------------


def check_lines(text, ranks, lines=LINES):
    """Check that every line of every rank is there, whole, and in the rank's order."""
    seen = collections.defaultdict(list)
    for line in text.splitlines():
        rank, number, filler = line.split()
        assert filler == "x" * (int(number) % 90 + 1)
        seen[rank].append(int(number))
    assert {rank: sorted(numbers) == numbers == list(range(lines)) for rank, numbers in seen.items()} == {
        str(rank): True for rank in range(ranks)
    }


def test_all_lines_are_there_when_run_returns(capsys):
    with mp.World(4) as world:
        world.run(rankwork.print_lines, LINES)
        check_lines(capsys.readouterr().out, 4)
        world.run(rankwork.print_lines, 10)
        check_lines(capsys.readouterr().out, 4, 10)
    assert capsys.readouterr().err == ""


def test_output_goes_where_sys_stdout_goes():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mp.World(2) as world:
        world.run(rankwork.print_lines, 100)
        check_lines(out.getvalue(), 2, 100)
        world.run(rankwork.print_to_stderr, "from a rank")
        assert err.getvalue() == "from a rank\n" * 2


def test_output_follows_a_redirection_of_later():
    with mp.World(1) as world:
        for text in ("one", "two"):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                world.run(print, text)
            assert out.getvalue() == f"{text}\n"


@pytest.mark.parametrize("how", ["os.write", "subprocess", "libc", "buffer"])
def test_what_is_written_below_python_is_output_too(how, capsys):
    with mp.World(2) as world:
        world.run(rankwork.write_below, how)
        assert capsys.readouterr().out == "from below\n" * 2


def test_output_is_labelled_on_request(capsys):
    with mp.World(2, label=True) as world:
        world.run(rankwork.print_lines, 2)
    host = socket.gethostname()
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"[{rank}@{host}] {rank} {n} {'x' * (n + 1)}" for rank in range(2) for n in range(2))


def test_what_a_rank_prints_before_it_fails_or_dies_is_not_lost(capsys):
    with mp.World(3) as world:
        for end in ("raise", "os._exit", "SIGKILL"):
            with pytest.raises(mp.WorldError):
                world.run(rankwork.print_and_end, end)
            assert capsys.readouterr().out.count("before the end\n") == 3


def test_the_drivers_own_words_come_first(tmp_path):
    out = programs.run_script(
        tmp_path,
        """
        import klyng_mp as mp
        with mp.World(2) as w:
            print("before")
            w.run(print, "rank")
            print("after")
        """,
    )
    assert out == "before\nrank\nrank\nafter\n"


def test_a_process_with_real_descriptors_gets_whole_lines(tmp_path):
    text = f"""
        import sys
        sys.path.insert(0, {str(programs.ROOT / "tests")!r})
        import rankwork, klyng_mp as mp
        with mp.World(4) as w:
            w.run(rankwork.print_lines, {LINES})
            print("run is over")
    """
    out = programs.run_script(tmp_path, text)
    assert out.endswith("run is over\n")
    check_lines(out.removesuffix("run is over\n"), 4)


def test_run_waits_for_a_slow_reader_of_its_output(tmp_path):
    """What the driver says after a run comes after what was said in it, also where nobody reads for a while."""
    text = f"""
        import sys
        sys.path.insert(0, {str(programs.ROOT / "tests")!r})
        import rankwork, klyng_mp as mp
        with mp.World(2) as w:
            w.run(rankwork.print_and_touch, 3000, "done")
            print("run is over")
    """
    read_end, write_end = os.pipe()
    with programs.start_script(tmp_path, text, stdout=write_end) as program:
        os.close(write_end)
        programs.wait_until(lambda: (tmp_path / "done0").exists() and (tmp_path / "done1").exists())
        with os.fdopen(read_end) as pipe:
            out = pipe.read()
        assert program.finish() == 0, program.err
    assert out.endswith("run is over\n")
    check_lines(out.removesuffix("run is over\n"), 2, 3000)


def test_output_goes_on_while_the_driver_computes(tmp_path):
    """It is forwarded without the driver's interpreter."""
    text = """
        import klyng_mp as mp, os, sys
        def hello():
            print("rank says hello")
        with mp.World(1) as w:
            w.run(len, "")
            run = w.start(hello)
            os.read(0, 1)       # nothing of klyng runs in the driver until the test has seen the line
            run.result()
    """
    with programs.start_script(tmp_path, text, stdin=-1) as program:
        program.wait_for("rank says hello\n", seconds=10)
        program.process.stdin.write(b"x")
        program.process.stdin.close()
        assert program.finish() == 0


def test_unicode_and_bytes_that_are_none(capsys):
    with mp.World(1) as world:
        world.run(print, "äöü € 🙂")
        assert capsys.readouterr().out == "äöü € 🙂\n"
        world.run(os.write, 1, b"\xff\xfe\n")
        assert capsys.readouterr().out == "\ufffd\ufffd\n"


def test_unicode_cut_between_two_reads_is_not_spoilt(capsys):
    with mp.World(1) as world:
        world.run(print, "ä" * 300_000)
    assert capsys.readouterr().out == "ä" * 300_000 + "\n"


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both", "none objects"])
def test_a_driver_without_standard_streams(tmp_path, closed):
    text = f"""
        import os, sys
        import klyng_mp as mp
        for fd in {{"stdout": [1], "stderr": [2], "both": [1, 2, 0], "none objects": []}}[{closed!r}]:
            os.close(fd)
        if {closed!r} == "none objects":
            sys.stdout = sys.stderr = None
        with mp.World(2) as w:
            w.run(print, "x")
            found = w.run(lambda: mp.rank())
        with open("found", "w") as file:
            file.write(str(found))
        os._exit(0)
    """
    with programs.start_script(tmp_path, text) as program:
        assert program.finish() == 0, program.err
    assert (tmp_path / "found").read_text() == "[0, 1]"


def test_standard_input_is_rank_0s(tmp_path):
    text = """
        import sys
        import klyng_mp as mp
        with mp.World(2) as w:
            print(w.run(lambda: sys.stdin.readline()), w.run(lambda: sys.stdin.read()))
    """
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as file:
        file.write("first\nsecond\nthird\n")
    with programs.start_script(tmp_path, text, stdin=read_end) as program:
        os.close(read_end)
        assert program.finish() == 0, program.err
        assert program.out == r"['first\n', ''] ['second\nthird\n', '']" + "\n"


def test_a_reader_that_goes_away_is_no_trouble_for_the_world(tmp_path):
    read_end, write_end = os.pipe()
    text = """
        import klyng_mp as mp, sys
        def chatter():
            try:
                while True:
                    print("x" * 1000)
            except BrokenPipeError:
                sys.stdout = sys.__stdout__ = open("/dev/null", "w")
                return "told"
        with mp.World(2) as w:
            found = w.run(chatter)
        print(found, file=sys.stderr)
        sys.stderr.flush()
        import os; os._exit(0)
    """
    with programs.start_script(tmp_path, text, stdout=write_end) as program:
        os.close(write_end)
        assert os.read(read_end, 100)
        os.close(read_end)
        assert program.finish() == 0
        assert program.err == "['told', 'told']\n"


def test_a_driver_whose_output_nobody_reads_can_still_end(tmp_path):
    """What is left for a reader that reads no more is given up with the driver."""
    read_end, write_end = os.pipe()
    text = """
        import klyng_mp as mp, os
        def chatter():
            if mp.rank() == 0:
                raise ValueError
            while True:
                print("x" * 1000)
        with mp.World(2) as w:
            print("pid", os.getpid(), *w.run(os.getpid), flush=True)
            try:
                w.run(chatter)
            except mp.RankFailedError:
                os.write(2, b"told")
                os._exit(0)
    """
    with programs.start_script(tmp_path, text, stdout=write_end) as program:
        os.close(write_end)
        pids = os.read(read_end, 1000).split(b"\n")[0].split()[1:]
        programs.wait_until(lambda: program.err == "told")
        assert program.finish() == 0
        assert not programs.still_there(pids)
        os.close(read_end)
