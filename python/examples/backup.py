#!/usr/bin/python3
"""backup.py LOCATOR KEYFILE BACKUP: the plaintext of an encrypted disk into a file, and its SHA-256, of
what was read and of what the file has then."""
import hashlib
import os
import sys

import ndio

PIECE = 1 << 20  # bytes


def hash_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def back_up(volume, path):
    digest, buffer = hashlib.sha256(), bytearray(PIECE)
    with open(path, "wb") as file:
        for offset in range(0, volume.size, PIECE):
            with memoryview(buffer)[:min(PIECE, volume.size - offset)] as part:
                volume.preadv([part], offset)
                digest.update(part)
                file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def main():
    locator, key_file, path = sys.argv[1:]
    with open(key_file, "rb") as file:
        key = file.read()
    with ndio.Volume(locator, key, readonly=True) as volume:
        digest = back_up(volume, path)
    if hash_of(path) != digest:
        sys.exit(f"{path}: isn't what was read")
    print(f"{digest}  {path}")


try:
    main()
except OSError as error:
    sys.exit(f"{sys.argv[0]}: {error.strerror}")
