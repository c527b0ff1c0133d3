#!/usr/bin/python3
"""copy.py FROM TO KEYFILE: copies a disk into an encrypted one, many pieces at a time, holes left out."""
import asyncio
import sys

import ndio

PIECE = 1 << 20  # bytes
AT_A_TIME = 8


async def copy_pieces(source, target, pieces):
    """Those that nobody has taken yet, with a buffer of its own."""
    buffer = bytearray(PIECE)
    for offset, length in pieces:
        with memoryview(buffer)[:length] as part:
            await source.aio_preadv([part], offset)
            await target.aio_pwritev([part], offset)


async def copy(source, target):
    pieces = [(at, min(PIECE, offset + length - at))
              for offset, length, kind in await source.aio_extents(0, source.size)
              if not kind & ndio.ZERO
              for at in range(offset, offset + length, PIECE)]
    await target.aio_zero(0, source.size, may_trim=True)
    todo = iter(pieces)
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(copy_pieces(source, target, todo))
    await target.aio_flush()
    return sum(length for _, length in pieces)


def main():
    with open(sys.argv[3], "rb") as file:
        key = file.read()
    with ndio.Volume(sys.argv[1], readonly=True) as source, ndio.Volume(sys.argv[2], key) as target:
        if source.size > target.size:
            sys.exit(f"{sys.argv[2]}: smaller than {sys.argv[1]}")
        print(asyncio.run(copy(source, target)), "bytes copied")


try:
    main()
except* OSError as errors:
    sys.exit("\n".join(f"{sys.argv[0]}: {error.strerror}" for error in errors.exceptions))
