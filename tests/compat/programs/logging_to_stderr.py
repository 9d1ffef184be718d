"""The module's logger, and records of a child through a queue."""

import logging
import logging.handlers
import multiprocessing as mp
import sys


class Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.levelname, record.processName, record.getMessage()))


def work(queue):
    logger = logging.getLogger("app")
    logger.handlers = [logging.handlers.QueueHandler(queue)]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.info("begun by %s", mp.current_process().name)
    logger.debug("not shown")
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception("failed")


if __name__ == "__main__":
    logger = mp.get_logger()
    print(logger.name, logger.propagate, logger is mp.get_logger())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s in %(processName)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.warning("careful")
    logger.info("informed")
    logger.debug("silent")
    logger.removeHandler(handler)
    logger.setLevel(logging.WARNING)

    queue, collector = mp.Queue(), Collector()
    listener = logging.handlers.QueueListener(queue, collector)
    listener.start()
    process = mp.Process(target=work, args=(queue,), name="worker")
    process.start()
    process.join()
    listener.stop()
    for line in collector.lines:
        print(*(str(word).splitlines()[0] for word in line))
    shown = mp.log_to_stderr(logging.ERROR)
    print(shown.level == logging.ERROR, len(shown.handlers))
