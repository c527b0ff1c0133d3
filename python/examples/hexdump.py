#!/usr/bin/python3
"""hexdump.py LOCATOR OFFSET [KEYFILE]: the 512 bytes of an encrypted disk at OFFSET."""
import sys

import ndio

locator, offset, key = sys.argv[1], int(sys.argv[2], 0), None
try:
    if len(sys.argv) > 3:
        with open(sys.argv[3], "rb") as file:
            key = file.read()
    with ndio.Volume(locator, key, readonly=True) as volume:
        sector = volume.pread(min(512, volume.size - offset), offset)
except OSError as error:
    sys.exit(f"{sys.argv[0]}: {error.strerror}")
for at in range(0, len(sector), 16):
    line = sector[at:at + 16]
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
    print(f"{offset + at:08x}  {line.hex(' '):47}  |{text}|")
