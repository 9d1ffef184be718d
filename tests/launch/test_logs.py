"""launch.logs: a rank's log records reach the driver's logging, and say whose they are."""

from __future__ import annotations

import logging
import pickle

import programs
import pytest
import rankwork

import klyng_mp as mp
from klyng_mp.launch.logs import DriverHandler, handle_record, mark_records


@pytest.fixture
def records():
    """Collect what reaches the root logger, at any level."""
    seen = []

    class Collector(logging.Handler):
        def emit(self, record):
            seen.append(record)

    root = logging.getLogger()
    previous, collector = root.level, Collector()
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    yield seen
    root.removeHandler(collector)
    root.setLevel(previous)


@pytest.fixture
def logger():
    """Give a logger whose records are packed for the driver, and the packets."""
    packets = []
    logger = logging.Logger("klyng-test-of-logs")  # alone: its records reach no other handler
    logger.addHandler(DriverHandler(packets.append))
    return logger, packets


def test_a_record_keeps_what_it_says(logger, records):
    logger, packets = logger
    logger.warning("%d of %s", 3, "four", extra={"own": 7})
    handle_record(packets[0])
    (record,) = records
    assert record.getMessage() == "3 of four"
    assert (record.levelno, record.name, record.own) == (logging.WARNING, logger.name, 7)
    assert record.filename == "test_logs.py"


def test_what_cannot_travel_is_formatted_where_it_is(logger):
    logger, packets = logger
    logger.error("%s", (number for number in range(3)), extra={"stream": open})
    assert "generator" in pickle.loads(packets[0])["msg"]


def test_an_exception_comes_as_text(logger):
    logger, packets = logger
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("failed")
    fields = pickle.loads(packets[0])
    assert "ZeroDivisionError" in fields["exc_text"]
    assert fields["exc_info"] is None


def test_a_record_that_cannot_be_formatted_hurts_nobody(logger, capsys):
    logger, packets = logger
    logger.error("%d", "not a number")
    assert packets == []
    assert "not a number" in capsys.readouterr().err


def test_the_drivers_levels_are_heeded(logger, records):
    logger, packets = logger
    logger.info("too quiet")
    named = logging.getLogger(logger.name)
    named.setLevel(logging.WARNING)
    handle_record(packets[0])
    assert records == []
    named.setLevel(logging.NOTSET)
    handle_record(packets[0])
    assert [record.getMessage() for record in records] == ["too quiet"]


def test_records_are_marked():
    previous = logging.getLogRecordFactory()
    try:
        mark_records(5)
        record = logging.getLogger("x").makeRecord("x", 10, "f", 1, "text", (), None)
        assert (record.rank, record.getMessage()) == (5, "text")
    finally:
        logging.setLogRecordFactory(previous)


# -- ranks -----------------------------------------------------------------------------------------------


def test_records_of_ranks_reach_the_driver_with_their_rank(records):
    with mp.World(3) as world:
        world.run(rankwork.log, "from %s", "afar")
    mine = [record for record in records if record.name == "rankwork"]
    assert sorted(record.rank for record in mine) == [0, 1, 2]
    assert {record.getMessage() for record in mine} == {"from afar"}
    assert {record.levelno for record in mine} == {logging.WARNING}
    assert {record.processName for record in mine} == {"rank 0", "rank 1", "rank 2"}


def test_they_are_there_when_run_returns(records):
    with mp.World(2) as world:
        for _ in range(10):
            records.clear()
            world.run(rankwork.log_much, 100)
            assert len([record for record in records if record.name == "rankwork"]) == 200


def test_they_are_there_of_a_rank_that_failed_too(records):
    with mp.World(2) as world:
        with pytest.raises(mp.RankFailedError):
            world.run(rankwork.log_and_fail)
        assert [record.getMessage() for record in records if record.name == "rankwork"] == ["about to fail"]
        assert world.run(rankwork.rank) == [0, 1]


def test_a_rank_logs_nothing_that_the_driver_would_not(tmp_path):
    text = """
        import logging, sys
        import klyng_mp as mp
        logging.basicConfig(format="%(levelname)s %(rank)s %(message)s", level=sys.argv[1])
        def speak():
            logging.debug("debug"); logging.info("info"); logging.warning("warning")
            return logging.getLogger().isEnabledFor(logging.DEBUG)
        with mp.World(1) as w:
            print(w.run(speak))
    """
    said = ["DEBUG 0 debug", "INFO 0 info", "WARNING 0 warning"]
    for level, expected, enabled in (("DEBUG", 3, True), ("INFO", 2, False), ("ERROR", 0, False)):
        with programs.start_script(tmp_path, text, level) as program:
            assert program.finish() == 0, program.err
            assert program.out == f"[{enabled}]\n"
            assert program.err.splitlines() == said[3 - expected :]


def test_warnings_are_seen_where_nobody_has_set_up_logging(tmp_path):
    text = """
        import klyng_mp as mp
        def speak():
            import logging
            logging.getLogger("mine").warning("take care")
            logging.getLogger("mine").info("not shown")
        with mp.World(1) as w:
            w.run(speak)
    """
    with programs.start_script(tmp_path, text) as program:
        assert program.finish() == 0
        assert program.err == "take care\n"
