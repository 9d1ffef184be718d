"""Pipes: both ways, one way, bytes, objects larger than a pipe, poll, wait, and the end of the other side."""

import multiprocessing as mp
from multiprocessing.connection import wait


def answer(connection, other):
    other.close()
    while True:
        try:
            message = connection.recv()
        except EOFError:
            break
        connection.send((message, type(message).__name__))
    connection.close()


def talk(writer, name, count):
    for number in range(count):
        writer.send((name, number))
    writer.close()


if __name__ == "__main__":
    ours, theirs = mp.Pipe()
    process = mp.Process(target=answer, args=(theirs, ours))
    process.start()
    theirs.close()
    for message in (None, 1, "text", [1, [2, [3]]], {"a": {1, 2}}, "x" * 300_000, b"y" * 1_000_000, 2**200):
        ours.send(message)
        back, name = ours.recv()
        print(back == message, name)
    print(ours.poll(), ours.readable, ours.writable, ours.closed)
    ours.close()
    process.join()
    print(process.exitcode, ours.closed)

    readers = []
    processes = []
    for name, count in (("a", 3), ("b", 2), ("c", 0)):
        reader, writer = mp.Pipe(duplex=False)
        process = mp.Process(target=talk, args=(writer, name, count))
        process.start()
        writer.close()
        readers.append(reader)
        processes.append(process)
    came = []
    while readers:
        for reader in wait(readers):
            try:
                came.append(reader.recv())
            except EOFError:
                readers.remove(reader)
                reader.close()
    print(sorted(came))
    for process in processes:
        process.join()

    reader, writer = mp.Pipe(False)
    writer.send_bytes(b"0123456789", 2, 5)
    print(reader.recv_bytes())
    writer.send_bytes(b"abcdef")
    buffer = bytearray(10)
    print(reader.recv_bytes_into(buffer, 3), bytes(buffer))
    writer.send_bytes(b"too much")
    try:
        reader.recv_bytes_into(bytearray(3))
    except mp.BufferTooShort as error:
        print("BufferTooShort", error.args)
    for wrong in (lambda: reader.send(1), lambda: writer.recv(), lambda: writer.send_bytes(b"abc", 5)):
        try:
            wrong()
        except (OSError, ValueError) as error:
            print(type(error).__name__, error)
    writer.close()
    try:
        reader.recv()
    except EOFError:
        print("EOFError")
    with reader:
        pass
    try:
        reader.fileno()
    except OSError as error:
        print(error)
