"""options: beacon.toml, and the sentence for each thing in it that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import klyng_mp as mp
from klyng_mp.remote.home import Home
from klyng_mp.remote.options import BeaconOptions, parse_options, read_options


def test_without_a_file_all_is_as_it_comes_and_only_this_machine_is_let_in(tmp_path):
    assert read_options(Home(tmp_path / "home")) == BeaconOptions()
    assert BeaconOptions().host == "127.0.0.1"
    assert BeaconOptions().port == 2222
    assert BeaconOptions().max_unauthenticated == 100
    assert BeaconOptions().allow_plaintext is False


def test_every_key_can_be_set(tmp_path):
    home = Home(tmp_path / "home")
    Path(home.options).write_text(
        '# mine\nhost = "::"\nport = 0\nmax_jobs = 2\nmax_ranks = 8\nmax_bundle_bytes = "1 MiB"\n'
        'max_job_seconds = 60\nmax_rank_memory_bytes = "2GiB"\ncache_bytes = 0\nmax_unauthenticated = 7\n'
        "grace_seconds = 2.5\nlog_bytes = '1 MiB'\nlog_files = 9\nallow_plaintext = true\n"
    )
    os.chmod(home.options, 0o644)
    found = read_options(home)
    assert found == BeaconOptions("::", 0, 2, 8, 1 << 20, 60.0, 2 << 30, 0, 7, 2.5, 1 << 20, 9, True)
    assert all(value != default for value, default in zip(found, BeaconOptions(), strict=True))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = \n", r"^beacon.toml is not TOML: .*line 1, column 8"),
        ("\nmax_rank = 4", "^beacon.toml, line 2: 'max_rank' means nothing here: write max_ranks$"),
        ("colour = 4", "line 1: 'colour' means nothing here: there are host, port, max_jobs"),
        ("[limits]\nmax_jobs = 4", "line 1: 'limits' means nothing here"),
        ("# port\nport = '2222'", "line 2: port is '2222': write a number from 0 to 65535$"),
        ("port = 65536", "port is 65536: write a number from 0 to 65535"),
        ("port = true", "port is True: write a number"),
        ("max_jobs = 0", "max_jobs is 0: write a number from 1 to 10000"),
        ("max_ranks = 1.5", "max_ranks is 1.5: write a number"),
        ("max_job_seconds = nan", "max_job_seconds is nan: write a number from 1$"),
        ("max_job_seconds = inf", "max_job_seconds is inf: write a number"),
        ("cache_bytes = '1 MB'", "cache_bytes is '1 MB': write a size, as 1048576 or \"1 MiB\", from 0$"),
        ("cache_bytes = -1", "cache_bytes is -1: write a size"),
        ("max_bundle_bytes = '99999999 TiB'", "write a size"),
        ("host = 5", "host is 5: write an address in quotes"),
        ('host = "a b"', "host is 'a b': write an address"),
        ("allow_plaintext = 1", "allow_plaintext is 1: write true or false"),
        ("'max jobs' = 1", "line 1: 'max jobs' means nothing here: write max_jobs"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("port = " + "9" * 5000, "is not TOML: .*digits"),
        ("port = 0x" + "f" * 5000, "port is a number without end: write a number"),
        ("max_jobs = [0x" + "f" * 5000 + "]", "max_jobs is a number without end: write a number"),
    ],
)
def test_what_is_wrong_gets_a_sentence(text, sentence):
    with pytest.raises(mp.BeaconError, match=sentence):
        parse_options(text, "beacon.toml")


@given(
    st.sampled_from(BeaconOptions._fields), st.sampled_from(["0", "1", "-1", "1e400", "nan", "''", "[]", "2020-01-01"])
)
def test_no_value_gets_through_unseen(key, value):
    try:
        found = parse_options(f"{key} = {value}", "beacon.toml")
    except mp.BeaconError:
        return
    default = getattr(BeaconOptions(), key)
    assert type(getattr(found, key)) is type(default) or default is None
