"""The limits of this machine, beside those that take part in the servers' rounds (the raw disk
and nbdkit null): one core's encryption, and copying memory."""
import ctypes
import time

from disks import MIB, Failure

COPIED = 64 * MIB # far more than a cache


def openssl(bench, size):
    """MiB/s of one core: each sector is one call, as LUKS needs it."""
    said = bench.run("openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(size),
                     "-evp", "aes-256-xts")
    for line in said.splitlines():
        if line.startswith("+F:"):
            return {"MiB/s": float(line.rpartition(":")[2]) / MIB}
    raise Failure("openssl speed didn't say how fast")


def memcpy(source, target, seconds=0.5):
    """MiB/s, in pieces of 1 MiB through buffers that no cache holds."""
    start, count = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        at = count * MIB % COPIED
        ctypes.memmove(target + at, source + at, MIB)
        count += 1
    return {"MiB/s": count / passed}


def measure(bench):
    buffers = [ctypes.create_string_buffer(b"\x5a" * COPIED, COPIED) for _ in range(2)]
    source, target = (ctypes.addressof(buffer) for buffer in buffers)
    bench.measure("limits", "aes-256-xts, one core", [("openssl", 512), ("openssl", 4096)], None,
                  lambda case, _: openssl(bench, case[1]))
    bench.measure("limits", "memcpy, one core", [("libc", MIB)], None,
                  lambda *_: memcpy(source, target))
