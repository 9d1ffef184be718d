"""The pages about other machines: their tables are the code's, their programs run, their links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pagetables
import pytest

import klyng_mp.errors
from klyng_mp.cli.beacon_parser import build_beacon_parser
from klyng_mp.remote import admission, confinement, hosts, network, options, pairing, preface, records, session, tls
from klyng_mp.remote.home import Home
from klyng_mp.remote.security import ParamsEd25519

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
REMOTE = (DOCS / "remote.md").read_text(encoding="utf-8")
SECURITY = (DOCS / "security.md").read_text(encoding="utf-8")
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
MACHINES = (DOCS / "machines.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def cells(page, heading):
    """Return the first table below a heading, without its head, as lists of cells."""
    _, _, below = page.partition(f"\n{heading}\n")
    rows = re.search(r"((?:^\|.*\n)+)", below, re.MULTILINE)[1].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


# -- tables and numbers


def test_the_tables_of_the_protocol_are_the_code_s():
    assert pagetables.update(PROTOCOL) == PROTOCOL, "run python tests/remote/pagetables.py"


def test_each_frame_and_record_has_a_phrase():
    for part in pagetables.PARTS.finditer(PROTOCOL):
        assert [name for name, phrase in pagetables.ROW.findall(part[3]) if not phrase] == []
    assert "| `describe` |" in PROTOCOL
    assert "| `hello` |" in PROTOCOL


def test_a_table_that_is_out_of_date_is_noticed():
    assert (
        pagetables.update(PROTOCOL.replace("| 2 | `challenge` | beacon |", "| 2 | `challenge` | client |")) == PROTOCOL
    )
    assert pagetables.update(PROTOCOL.replace("nonce: bytes 32", "nonce: bytes 31")) == PROTOCOL


def test_the_limits_of_a_beacon_are_all_there_with_their_defaults():
    defaults = {key: value for key, value, _ in cells(REMOTE, "### Limits")}
    said = {
        key.strip("`"): None if value == "none" else tomllib.loads(f"value = {value.strip('`')}")["value"]
        for key, value in defaults.items()
    }
    assert said == options.BeaconOptions()._asdict()
    for text in blocks(REMOTE, "toml"):
        assert options.parse_options(text, "beacon.toml") != options.BeaconOptions()


def test_the_commands_of_a_beacon_are_all_there():
    (action,) = (one for one in build_beacon_parser()._actions if one.dest == "command")
    named = re.findall(r"`klyng-mp beacon (\w+)`", "".join(row[0] for row in cells(REMOTE, "## The beacon")))
    assert set(named) == set(action.choices)


def test_the_errors_are_all_there_and_are_what_they_are_called():
    named = {name for row in cells(REMOTE, "## Errors") for name in re.findall(r"`(\w+Error)", row[0])}
    assert {
        name for name in named if not issubclass(getattr(klyng_mp.errors, name), klyng_mp.errors.KlyngError)
    } == set()
    theirs = {
        name
        for name, error in vars(klyng_mp.errors).items()
        if isinstance(error, type) and issubclass(error, klyng_mp.errors.BeaconError)
    }
    assert theirs | {"MachinesError", "HostLostError", "NotAcrossHostsError"} <= named


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (PROTOCOL, f"preface](#between-ranks) of {preface.PREFACE_SIZE} bytes"),
        (PROTOCOL, f'"{preface.MAGIC.decode()}" 4 |'),
        (PROTOCOL, f"`{tls.CIPHER}`"),
        (PROTOCOL, f"| ALPN | `{tls.CONTROL}` | `{tls.DATA}` |"),
        (PROTOCOL, f"pings every {records.HEARTBEAT_SECONDS:.0f} seconds"),
        (PROTOCOL, f"dead after {records.SILENCE_SECONDS:.0f} seconds"),
        (PROTOCOL, f"it leaves {session.ANSWER_SECONDS} s after"),
        (PROTOCOL, f"`rank-N.job`; the driver's N is {network.rank_name(tls.DRIVER)[5:-4]}"),
        (PROTOCOL, f"one TCP port, {hosts.DEFAULT_PORT}"),
        (PROTOCOL, f"M = {ParamsEd25519.M.to_bytes().hex()}\nN = {ParamsEd25519.N.to_bytes().hex()}\n"),
        (SECURITY, f"within {pairing.PAIRING_SECONDS / 60:.0f} minutes, once; {pairing.PAIRING_GUESSES} guesses"),
        (SECURITY, f"{confinement._MEMORY_BYTES >> 20} MiB more than its beacon"),
        (SECURITY, f"five seconds of a processor and {confinement._FILES} files"),
        (SECURITY, f"at most {admission.AdmissionLimits().unauthenticated} connections are at logging in"),
        (SECURITY, f"{admission.AdmissionLimits().strangers_per_second:.0f} strangers a second"),
        (REMOTE, f"has said nothing for {records.SILENCE_SECONDS:.0f} s"),
    ],
)
def test_a_number_of_the_pages(page, said):
    assert said in page


def test_each_module_of_the_room_has_its_place_in_the_architecture():
    row = re.search(r"^\| `remote/` \|.*$", ARCHITECTURE, re.MULTILINE)[0]
    modules = {path.stem for path in (ROOT / "klyng_mp" / "remote").glob("*.py")} - {"__init__"}
    assert {word for words in re.findall(r"`([a-z_ ]+)`", row) for word in words.split()} == modules


def anchors(page):
    """Return what GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


# -- programs and files


def test_the_machines_files_say_the_same(tmp_path):
    (tmp_path / "lab2.passwd").write_text("secret\n")
    (tmp_path / "lab2.passwd").chmod(0o600)
    found = []
    for kind in ("json", "toml"):
        file = tmp_path / f"machines.{kind}"
        file.write_text(blocks(MACHINES, kind)[0])
        file.chmod(0o600)
        found.append(hosts.read_hosts(file))
    assert found[0] == found[1]
    assert len(found[0]) == 4
    for text in blocks(REMOTE, "json"):
        assert [host.key for host in hosts.read_hosts(json.loads(text))] == ["local", "lab"]


@pytest.fixture
def beacon(tmp_path, time_limit):
    """Give a beacon on loopback: its address, and its folder."""
    home = Home(tmp_path / "there")
    process = subprocess.Popen(
        [sys.executable, "-m", "klyng_mp.beacon", "--port=0", "--allow-root"],
        env={**os.environ, "KLYNG_MP_HOME": home.path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert select.select([process.stdout], [], [], time_limit(20))[0], "it does not come up"
        line = process.stdout.readline()
        assert line.startswith("beacon at "), line + process.stdout.read()
        yield line.split()[2].rstrip(","), home
    finally:
        process.terminate()
        process.wait(time_limit(20))
        process.stdout.close()


def test_the_client_of_the_protocol_page_logs_in(beacon, run_python, tmp_path):
    address, home = beacon
    (text,) = blocks(PROTOCOL, "python")
    program = tmp_path / "client.py"
    program.write_text(text)
    host, _, port = address.partition(":")
    done = run_python(program, host, port, home.read(home.password).strip())
    assert (done.stdout, done.stderr) == ("ranks 0 of 256\n", "")
    refused = run_python(program, host, port, "another")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "'reason': 'authentication'" in refused.stderr


def klyng_mp_command(run_python, *words, **kwargs):
    return run_python("-m", "klyng_mp", *words, **kwargs)


@pytest.mark.slow
def test_the_first_five_minutes(beacon, run_python, tmp_path):
    address, home = beacon
    there, here = {"KLYNG_MP_HOME": home.path}, {"KLYNG_MP_HOME": str(tmp_path / "here")}
    shown = klyng_mp_command(run_python, "beacon", "pair", env=there).stdout
    code = re.match(r"code: (\S+)\ngood once, for 10 minutes: klyng-mp beacon pair HOST", shown)[1]
    paired = klyng_mp_command(run_python, "beacon", "pair", address, env=here, stdin=f"{code}\n")
    assert paired.stdout == f"{address} lets this user in by key from now on\n", paired.stderr
    assert "lab lets this user in by key from now on" in REMOTE

    (machines,) = blocks(REMOTE, "json")
    (tmp_path / "machines.json").write_text(machines.replace('"lab"', f'"{address}"'))
    looked = klyng_mp_command(run_python, "hosts", "-m", "machines.json", cwd=tmp_path, env=here)
    assert [line.split()[:2] for line in looked.stdout.splitlines()[1:]] == [["local", "ready"], [address, "ready"]]
    assert looked.stdout.splitlines()[0].split() == re.search(r"^HOST .*BANDWIDTH$", REMOTE, re.MULTILINE)[0].split()

    program = tmp_path / "app.py"
    first, shared = (text for text in blocks(REMOTE, "python") if "machines.json" in text)
    program.write_text(shared)
    ran = run_python(program, cwd=tmp_path, env=here, timeout=60)
    assert (ran.stdout, ran.stderr) == (f"{328350.0}\n", "")
    program.write_text(first)
    ran = run_python(program, cwd=tmp_path, env=here, timeout=60)
    assert ran.stderr == ""
    assert [line.split()[0] for line in ran.stdout.splitlines()] == ["15"] * 6

    program.write_text("import klyng_mp as mp\nprint(mp.comm().allreduce(mp.rank()))\n")
    ran = klyng_mp_command(run_python, "run", "-m", "machines.json", "app.py", cwd=tmp_path, env=here, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "15\n" * 6), ran.stderr
