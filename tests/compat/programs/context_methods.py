"""All that a context can make, made of one, and what kind it is."""

import multiprocessing as mp

NAMES = "Lock RLock Condition Event Queue JoinableQueue SimpleQueue".split()


def touch(things, out):
    for name, thing in things.items():
        if hasattr(thing, "acquire"):
            with thing:
                pass
        elif hasattr(thing, "put"):
            thing.put(name)
    out.send(sorted(things))


if __name__ == "__main__":
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        things = {name: getattr(context, name)() for name in NAMES}
        things |= {"Semaphore": context.Semaphore(2), "BoundedSemaphore": context.BoundedSemaphore(2)}
        things |= {"Barrier": context.Barrier(2), "Value": context.Value("i", 1), "Array": context.Array("i", 2)}
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=touch, args=(things, writer))
        process.start()
        writer.close()
        print(method, reader.recv())
        print([things[name].get() for name in ("Queue", "JoinableQueue", "SimpleQueue")])
        process.join()
        print({name: type(thing).__name__ for name, thing in things.items()})
        print(context.cpu_count() >= 1, context.get_context() is context, context.current_process().name)
        print(context.RawValue("i", 3).value, context.RawArray("i", 3)[:], context.active_children())
        with context.Manager() as manager:
            print(manager.list([1, 2]))
    print(sorted(name for name in mp.__all__ if name in dir(mp.get_context()) and name[0].isupper())[:8])
