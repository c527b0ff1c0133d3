#!/usr/bin/python3
"""edit-luks2.py FILE CODE [COPY...]: changes a LUKS2 header behind cryptsetup's back.

CODE is Python and changes `json`, the metadata, and `segment`, the first of its segments. The
checksums are made right again. COPY says which of the header's copies, 0 or 1; default both.
"""
import hashlib
import json as coder
import struct
import sys

BINARY = 4096  # bytes before the JSON
SUM, SUM_LEN = 448, 64

path, code = sys.argv[1:3]
copies = [int(n) for n in sys.argv[3:]] or [0, 1]
with open(path, "r+b") as disk:
    size = struct.unpack(">Q", disk.read(16)[8:])[0]
    for copy in copies:
        disk.seek(copy * size)
        header = bytearray(disk.read(size))
        json = coder.loads(header[BINARY:].split(b"\0")[0])
        segment = next(iter(json["segments"].values()), None)
        exec(code)
        text = coder.dumps(json, separators=(",", ":")).encode()
        header[BINARY:] = text.ljust(size - BINARY, b"\0")
        header[SUM:SUM + SUM_LEN] = bytes(SUM_LEN)
        digest = hashlib.new(header[72:104].split(b"\0")[0].decode(), header).digest()
        header[SUM:SUM + SUM_LEN] = digest.ljust(SUM_LEN, b"\0")
        disk.seek(copy * size)
        disk.write(header)
