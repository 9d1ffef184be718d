"""Listeners and clients over TCP and unix sockets, with a key, and a connection that travels."""

import multiprocessing as mp
import os
import tempfile
from multiprocessing.connection import Client, Listener


def call(address, key, words):
    with Client(address, authkey=key) as connection:
        for word in words:
            connection.send(word)
            print("client got", connection.recv(), flush=True)


def serve_one(connection):
    connection.send("hello from " + mp.current_process().name)
    connection.close()


if __name__ == "__main__":
    folder = tempfile.mkdtemp()
    for address in (("127.0.0.1", 0), os.path.join(folder, "socket")):
        with Listener(address, authkey=b"key") as listener:
            process = mp.Process(target=call, args=(listener.address, b"key", ["one", {"two": 2}]))
            process.start()
            with listener.accept() as connection:
                print(type(listener.last_accepted).__name__)
                while True:
                    try:
                        connection.send([connection.recv()])
                    except EOFError:
                        break
            process.join()
            print(process.exitcode)
    os.rmdir(folder)

    ours, theirs = mp.Pipe()
    process = mp.Process(target=serve_one, args=(theirs,), name="server")
    process.start()
    theirs.close()
    print(ours.recv())
    process.join()
    try:
        Client(("127.0.0.1", 1))
    except OSError as error:
        print(type(error).__name__)
    try:
        Listener(family="nonsense")
    except ValueError as error:
        print(error)
    try:
        Listener(("127.0.0.1", 0), authkey="text")
    except TypeError as error:
        print(error)
