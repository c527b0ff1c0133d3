"""The disks that are measured: LUKS volumes in files of random bytes, on a real disk."""
import os
import shutil
import subprocess

MIB, GIB = 1 << 20, 1 << 30
# A check comes first in each volume, then what is timed.
CHECK_OFFSET, CHECK_SIZE = 0, 16 * MIB
TIMED_OFFSET = 16 * MIB
# Bytes before the data. The plain contenders serve the LUKS1 file as it is, and are measured
# behind its header: on the same bytes as the encrypted ones.
HEADER = {1: 2 * MIB, 2: 16 * MIB}


class Failure(Exception):
    """A contender can't be measured, or gave a wrong answer."""


def run(*command, **options):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            check=False, **options)
    if result.returncode:
        said = (result.stderr + result.stdout).strip().splitlines()
        raise Failure(f"{command[0]} failed ({result.returncode}): {' | '.join(said[-3:])}")
    return result.stdout


def check_place(path, need):
    """Direct I/O to a file system in memory would measure no disk at all."""
    kind = run("stat", "-f", "-c", "%T", path).strip()
    if kind in ("tmpfs", "ramfs"):
        raise Failure(f"{path} is in memory ({kind}): BENCH_DIR must be on a disk")
    free = shutil.disk_usage(path).free
    if free < need + 512 * MIB:
        raise Failure(f"{path} has {free // MIB} MiB free, and {need // MIB + 512} are needed: "
                      "see BENCH_DIR and --size")


def fill(path, size):
    """Random bytes that are really on the disk: a hole or a preallocated block is read without
    it, and the first write to one costs more than the next."""
    run("fio", "--name=fill", f"--filename={path}", "--rw=write", "--bs=1M", f"--size={size}",
        "--refill_buffers", "--ioengine=io_uring", "--direct=1", "--iodepth=8", "--end_fsync=1")


def format_luks(path, version, key):
    """Key derivation is as cheap as can be: it isn't what is measured."""
    run("cryptsetup", "--batch-mode", "luksFormat", "--type", f"luks{version}",
        "--cipher", "aes-xts-plain64", "--key-size", "512", "--pbkdf", "pbkdf2",
        "--pbkdf-force-iterations", "1000", "--offset", str(HEADER[version] // 512),
        *(["--sector-size", "4096"] if version == 2 else []), path, key)


def make_luks(path, version, size, key, sparse=False):
    """A volume of size bytes."""
    if sparse:
        with open(path, "wb") as file:
            file.truncate(HEADER[version] + size)
    else:
        fill(path, HEADER[version] + size)
    format_luks(path, version, key)


def make_integrity(ndio, path, size, key, journal, trust=None):
    """A volume of size bytes and some more, each sector with a tag; and the file that says what it was."""
    fill(path, HEADER[2] + size + size // 64 + 64 * MIB)
    run(ndio, "format", "--yes", "--key-file", key, "--integrity", "aead", "--sector-size", "4096",
        "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
        *([] if journal else ["--integrity-no-journal"]), path)
    if trust:
        run(ndio, "trust", "--key-file", key, "--trust", trust, path)


def drop_caches(paths):
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fdatasync(fd) # dirty pages would stay
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
