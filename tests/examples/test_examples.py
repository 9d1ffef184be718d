"""Every example, run as its docstring says: alone, and on three ranks."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from beacons import beacons, client_home, hosts

__all__ = ["beacons", "client_home", "hosts"]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXAMPLES = REPOSITORY / "examples"
TIMEOUT = 60 * float(os.environ.get("KLYNG_MP_TEST_TIMEOUT_FACTOR", "1"))

LAUNCHES = {
    "alone": (1, [sys.executable]),
    "three": (3, [sys.executable, "-m", "klyng_mp", "run", "-n", "3"]),
}


@pytest.fixture(params=LAUNCHES)
def launch(request, tmp_path):
    """Return (size, run): the number of ranks, and a function that runs an example and returns its lines."""
    size, command = LAUNCHES[request.param]

    def run(name, *arguments):
        done = subprocess.run(
            [*command, str(EXAMPLES / name), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    return size, run


def test_hello_greets_once_a_rank_in_order(launch):
    size, run = launch
    lines = run("hello.py")
    assert lines[0] == f"hello from rank 0 of {size}"
    assert [line.partition(",")[0] for line in lines[1:]] == [f"hello from rank {r} of {size}" for r in range(1, size)]
    processes = [line.rpartition(" ")[2] for line in lines[1:]]
    assert len(set(processes)) == size - 1


@pytest.mark.parametrize("length", [1, 10_001])
def test_list_sum_is_that_of_the_whole_list(launch, length):
    size, run = launch
    (line,) = run("list_sum.py", length)
    assert re.fullmatch(rf"world of {size}: {length} numbers add up to -?\d+\.\d{{3}}, as they do alone", line)


def test_pi_is_pi(launch):
    size, run = launch
    (line,) = run("pi.py", 10_000)
    assert line.startswith(f"world of {size}: 10000 strips, pi = 3.14159265")


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (2, 0), (3, 1), (100, 25), (300_007, 25_997), (300_008, 25_998)])
def test_primes_counts_every_prime_below_the_limit(launch, limit, count):
    size, run = launch
    (line,) = run("primes.py", limit)
    assert line.startswith(f"world of {size}: {count} primes below {limit}")
    blocks = [int(number) for number in re.findall(r"did (\d+)", line)]
    assert len(blocks) == size - 1
    assert size == 1 or sum(blocks) == -(-limit // 50_000)


def test_ring_adds_every_rank_at_every_lap(launch):
    size, run = launch
    (line,) = run("ring.py", 20)
    assert line.startswith(f"world of {size}: 20 laps, the number is {20 * sum(range(size))}, as it should be; ")


def test_word_count_of_named_files(launch, tmp_path):
    size, run = launch
    texts = ["the cat and the dog", "The end, isn't it?", "", "dog 42 dog"]
    files = [tmp_path / f"{index}.txt" for index in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    lines = run("word_count.py", *files)
    assert lines[0] == f"world of {size}: 4 files, 12 words, 8 different"
    assert [tuple(line.split()) for line in lines[1:4]] == [("3", "dog"), ("3", "the"), ("1", "and")]


def test_word_count_reads_the_standard_library_by_default(launch):
    _, run = launch
    lines = run("word_count.py")
    counted = Counter({word: int(count) for count, word in (line.split() for line in lines[1:])})
    assert len(counted) == 10
    assert counted["self"] > 1000


def test_mandelbrot_writes_a_png_that_is_symmetric(launch, tmp_path):
    size, run = launch
    (line,) = run("mandelbrot.py", "picture.png", 40)
    assert line.startswith(f"world of {size}: picture.png, 40 x 30, rows a rank: ")
    rows = read_png(tmp_path / "picture.png")
    assert len(rows) == 30
    assert rows == rows[::-1]
    assert len({row[column : column + 3] for row in rows for column in range(0, 120, 3)}) > 20


def read_png(file):
    """Return the rows of a PNG as mandelbrot.py writes them, every checksum checked."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    pixels = zlib.decompress(chunks[b"IDAT"])
    stride = 1 + 3 * width
    assert len(pixels) == stride * height
    return [pixels[row * stride + 1 : (row + 1) * stride] for row in range(height)]


def test_world_runs_reports_a_failure_and_goes_on(launch):
    _, run = launch
    assert run("world.py") == [
        "squares: [0, 1, 4, 9]",
        "the others have seen [10, 20, 30]",
        "rank 2 failed: ZeroDivisionError('division by zero'); the World goes on",
        "warm again: 4 ranks",
    ]


@pytest.mark.parametrize(
    "spread", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "on other machines"]
)
def test_work_queue_finds_the_number_with_the_most_divisors(launch, spread, hosts, tmp_path):
    _, run = launch
    options = []
    if spread:
        (tmp_path / "machines.json").touch(0o600)
        machines = {host.pop("host"): host for host in hosts}
        (tmp_path / "machines.json").write_text(json.dumps(machines))
        options = ["--machines", "machines.json"]
    assert run("work_queue.py", "--limit", 200, *options) == ["the most divisors: 180 has 18", "done 200 of 200"]


def test_every_example_is_tested_and_listed():
    tested = Path(__file__).read_text()
    listed = (EXAMPLES / "README.md").read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'run("{example.name}"' in tested, f"{example.name} has no test"
        assert f"[{example.name}]" in listed, f"{example.name} is not in examples/README.md"


def test_flock_says_how_many_birds_there_are(launch):
    size, run = launch
    lines = run("flock.py", "--birds", 9, "--steps", 4)
    assert len(lines) == 5
    assert lines[0].split()[0] == ("9" if size == 1 else "1")


FLOCK = [
    "16 birds agree on a direction by 0.222 at first",
    "after 2 steps by 0.752",
    "after 4 steps by 0.962",
    "after 6 steps by 0.967",
    "after 8 steps by 0.984",
]
MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))
needs_mpi = pytest.mark.skipif(
    not Path(MPIEXEC).exists() or find_spec("mpi4py") is None, reason="mpi4py and an MPI are not installed"
)
KLYNG = [sys.executable, "-m", "klyng_mp", "run"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([sys.executable, "flock.py", "--birds", "16"], id="green"),
        pytest.param([sys.executable, "flock.py", "--birds", "16", "--processes", "3"], id="green in processes"),
        pytest.param([*KLYNG, "-n", "16", "flock.py"], id="processes"),
        pytest.param([*KLYNG, "--green", "-n", "17", "flock.py"], id="green program"),
        pytest.param([*KLYNG, "-n", "16", "-H", "hosts.json", "flock.py"], id="beacons", marks=pytest.mark.slow),
        pytest.param([MPIEXEC, "-n", "16", *KLYNG, "flock.py"], id="MPI", marks=needs_mpi),
    ],
)
def test_flock_is_the_same_whatever_its_birds_are(command, hosts, tmp_path):
    (tmp_path / "hosts.json").touch(0o600)
    (tmp_path / "hosts.json").write_text(json.dumps({host.pop("host"): {**host, "max_procs": 8} for host in hosts}))
    words = [str(EXAMPLES / word) if word == "flock.py" else word for word in command]
    done = subprocess.run(
        [*words, "--steps", "8", "--frames", "frames"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()) == (0, FLOCK), done.stderr
    pictures = [picture.read_bytes() for picture in (tmp_path / "frames").glob("*")]
    assert len(pictures) == (9 if "hosts.json" not in words else 0)  # else they are where rank 0 was
    assert all(picture.startswith(b"\x89PNG\r\n\x1a\n") for picture in pictures)
