#!/usr/bin/python3
"""extended.py SOCKET [large]: a client with NBD's extended headers, which no packaged one has yet: it
compares what the server answers byte by byte with what the specification says, and writes to the
export. large: that has 6 GiB or more, of which ranges of more than 32 bits are trimmed, zeroed and
asked for.
"""
import os
import random
import socket
import struct
import sys

IHAVEOPT, OPTION_REPLY = 0x49484156454F5054, 0x3E889045565A9
GO, STRUCTURED_REPLY, SET_META_CONTEXT, EXTENDED_HEADERS = 7, 8, 10, 11
ACK, INFO, META_CONTEXT, ERR_EXT_HEADER_REQD = 1, 3, 4, 0x8000000A
REQUEST, COMPACT_REQUEST, REPLY = 0x21E41C71, 0x25609513, 0x6E8A278C
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD = 1, 2, 4, 8, 16, 32
NONE, DATA, HOLE, BLOCK_STATUS_EXT, ERROR, ERROR_OFFSET = 0, 1, 2, 6, 32769, 32770
EPERM, EINVAL, ENOSPC, ENOTSUP = 1, 22, 28, 95
SEND_FUA, SEND_TRIM, SEND_ZEROES, SEND_CACHE, SEND_FAST_ZERO = 8, 32, 64, 1024, 2048

path = sys.argv[1]
noise = random.Random(3)


class Client:
    def __init__(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.cookie = 1 << 63
        assert self.get(18) == struct.pack(">8sQH", b"NBDMAGIC", IHAVEOPT, 3)
        self.sock.sendall(struct.pack(">I", 3))
        assert self.option(EXTENDED_HEADERS) == [(ACK, b"")]
        assert self.option(STRUCTURED_REPLY)[0][0] == ERR_EXT_HEADER_REQD
        name = b"base:allocation"
        told = self.option(SET_META_CONTEXT, struct.pack(">III", 0, 1, len(name)) + name)
        self.has_context = told[0][0] == META_CONTEXT
        if self.has_context:
            self.context, = struct.unpack(">I", told[0][1][:4])
            assert told[0][1][4:] == name
        assert told[-1] == (ACK, b"")
        told = self.option(GO, struct.pack(">IHH", 0, 1, 3))
        assert told.pop() == (ACK, b"")
        for kind, payload in told:
            assert kind == INFO
            what, = struct.unpack(">H", payload[:2])
            if what == 0:
                self.size, self.flags = struct.unpack(">QH", payload[2:])
            elif what == 3:
                self.smallest, _, self.largest = struct.unpack(">III", payload[2:])

    def get(self, count):
        got = bytearray()
        while len(got) < count:
            part = self.sock.recv(count - len(got))
            if not part:
                raise EOFError
            got += part
        return bytes(got)

    def option(self, option, payload=b""):
        """All replies to it: kind and payload of each."""
        self.sock.sendall(struct.pack(">QII", IHAVEOPT, option, len(payload)) + payload)
        replies = []
        while not replies or replies[-1][0] in (INFO, META_CONTEXT):
            magic, of, kind, length = struct.unpack(">QIII", self.get(20))
            assert (magic, of) == (OPTION_REPLY, option)
            replies.append((kind, self.get(length)))
        return replies

    def send(self, kind, offset, length, flags=0, payload=b""):
        self.cookie += 1
        self.sock.sendall(struct.pack(">IHHQQQ", REQUEST, flags, kind, self.cookie, offset,
                                      length) + payload)
        return self.cookie

    def reply(self, cookie, offset):
        """Type and payload of the next chunk, and whether it is the last one."""
        magic, flags, kind, of, at, length = struct.unpack(">IHHQQQ", self.get(32))
        assert magic == REPLY, hex(magic)
        assert of == cookie, (of, cookie)
        assert at == offset, (at, offset)
        assert flags in (0, 1), flags
        return kind, self.get(length), flags == 1

    def done(self, *request):
        kind, payload, last = self.reply(self.send(*request), request[1])
        assert (kind, payload, last) == (NONE, b"", True), (kind, payload, last)

    def refused(self, error, *request):
        kind, payload, last = self.reply(self.send(*request), request[1])
        assert kind in (ERROR, ERROR_OFFSET) and last, (kind, last)
        got, words = struct.unpack(">IH", payload[:6])
        assert got == error, (got, payload)
        assert len(payload) == 6 + words + (8 if kind == ERROR_OFFSET else 0)

    def write(self, offset, data, flags=0):
        self.done(WRITE, offset, len(data), flags | PAYLOAD, data)

    def read(self, offset, length, flags=0):
        cookie = self.send(READ, offset, length, flags)
        got, seen, last, chunks = bytearray(length), 0, False, 0
        while not last:
            kind, payload, last = self.reply(cookie, offset)
            if kind == NONE:
                assert payload == b"" and last
                continue
            at, = struct.unpack(">Q", payload[:8])
            at -= offset
            chunks += 1
            if kind == DATA:
                got[at:at + len(payload) - 8] = payload[8:]
                seen += len(payload) - 8
            else:
                assert kind == HOLE and len(payload) == 12, kind
                seen += struct.unpack(">I", payload[8:])[0]
        assert seen == length, (seen, length)
        assert not flags & DF or chunks == 1
        return bytes(got)

    def extents(self, offset, length, flags=0):
        """Of lengths and states, which are merged: no two alike beside each other."""
        kind, payload, last = self.reply(self.send(BLOCK_STATUS, offset, length, flags), offset)
        assert kind == BLOCK_STATUS_EXT and last, kind
        context, count = struct.unpack(">II", payload[:8])
        assert context == self.context
        assert len(payload) == 8 + 16 * count and count > 0
        told = [struct.unpack(">QQ", payload[at:at + 16]) for at in range(8, len(payload), 16)]
        assert all(told[i][1] != told[i + 1][1] for i in range(count - 1))
        assert all(extent[0] > 0 for extent in told)
        assert sum(extent[0] for extent in told) <= length
        assert not flags & REQ_ONE or count == 1
        return told

    def is_ended(self):
        """The connection is, after what was sent last."""
        try:
            return not self.sock.recv(1)
        except ConnectionResetError:
            return True


def data(count):
    return noise.randbytes(count)


def small(c):
    first, odd = data(1 << 20), data(777)
    c.write(0, first)
    c.write(12345, odd, FUA)
    want = first[:12345] + odd + first[12345 + 777:]
    assert c.read(0, 1 << 20) == want
    assert c.read(0, 1 << 20, DF) == want
    c.write(3 << 20, data(9 << 20))
    c.done(WRITE, 5000, 777, 0, odd)  # without the flag that it should have, as qemu does it
    want = want[:5000] + odd + want[5000 + 777:]
    c.done(ZEROES, 4096, 65536, FUA | NO_HOLE)
    want = want[:4096] + bytes(65536) + want[4096 + 65536:]
    assert c.read(1, (1 << 20) - 1) == want[1:]
    c.done(FLUSH, 0, 0)
    if c.flags & SEND_TRIM:
        c.done(TRIM, 3 << 20, 4 << 20)
    if c.flags & SEND_CACHE:
        c.done(CACHE, 0, c.size)
    # Many in flight, which end in any order.
    cookies = {c.send(READ, at, 4096): at for at in range(0, 100 * 4096, 4096)}
    while cookies:
        head = struct.unpack(">IHHQQQ", c.get(32))
        at = cookies[head[3]]
        assert head[4] == at
        payload = c.get(head[5])
        if head[2] == DATA:
            assert payload[8:] == want[at:at + 4096]
        if head[1]:
            del cookies[head[3]]
    if c.has_context:
        assert c.extents(0, 4096)[0][0] == 4096
        assert len(c.extents(0, c.size, REQ_ONE)) == 1
        walked = 0
        while walked < c.size:
            walked += sum(length for length, _ in c.extents(walked, c.size - walked))
    return want


def large(c):
    """Lengths of more than 32 bits."""
    before, after = data(4096), data(4096)
    length = c.size - 8192
    assert length > 5 << 30
    c.write(0, before)
    c.write(c.size - 4096, after)
    for kind, flags in (ZEROES, 0), (TRIM, 0), (ZEROES, FAST_ZERO), (TRIM, FUA):
        for at in 4096, (3 << 30) + 77, c.size - 9000:
            c.write(at, data(300))
        c.done(kind, 4096, length, flags)
        assert c.read(0, 4096) == before and c.read(c.size - 4096, 4096) == after
        if kind == ZEROES:
            for at in 4096, (3 << 30) + 77, c.size - 9000:
                assert c.read(at, 300) == bytes(300), at
    if c.flags & SEND_CACHE:
        c.done(CACHE, 0, c.size)
    told = c.extents(0, c.size)
    if len(told) == 3: # the file system tells of holes
        assert told[1] == (length, 3), told
    assert sum(extent[0] for extent in told) == c.size, told


def refusals(c, want):
    """Each is answered, and what follows is understood."""
    end = c.size
    for length in 2, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1:
        if length <= c.largest:
            c.refused(EINVAL, READ, end - 1, length)
        c.refused(ENOSPC, ZEROES, end - 1, length)
        if c.flags & SEND_TRIM:
            c.refused(EINVAL, TRIM, end - 1, length)
        if c.has_context:
            c.refused(EINVAL, BLOCK_STATUS, end - 1, length)
    for offset in end, 1 << 63, (1 << 64) - 1:
        c.refused(ENOSPC, WRITE, offset, 512, PAYLOAD, bytes(512))
    c.refused(EINVAL, READ, 0, 1 << 32)
    c.refused(EINVAL, READ, 0, (1 << 32) + 4096)
    c.refused(EINVAL, WRITE, 0, c.largest + 1, PAYLOAD, bytes(c.largest + 1))
    # Only a write has a payload here. Its bytes look like requests, and are none.
    lure = struct.pack(">IHHQQQ", REQUEST, PAYLOAD, WRITE, 7, 0, 32) + bytes(32)
    for kind in READ, BLOCK_STATUS, TRIM, ZEROES, CACHE, FLUSH, 77:
        c.refused(EINVAL, kind, 0, len(lure), PAYLOAD, lure)
    c.refused(EINVAL, 77, 0, 0)
    c.refused(EINVAL, WRITE, 0, 512, PAYLOAD | 0x8000, bytes(512))
    assert c.read(0, 1 << 20) == want


def ends():
    """Where nobody knows any more where the next request begins, there is none."""
    for head in (struct.pack(">IHHQQQ", REQUEST, PAYLOAD, WRITE, 7, 0, 1 << 63),
                 struct.pack(">IHHQQQ", REQUEST, PAYLOAD, BLOCK_STATUS, 7, 0, (1 << 64) - 1),
                 struct.pack(">IHHQQI", COMPACT_REQUEST, 0, READ, 7, 0, 512) + bytes(4)):
        c = Client()
        c.sock.sendall(head)
        assert c.is_ended(), head


client = Client()
refusals(client, small(client))
ends()
if "large" in sys.argv:
    large(client)
client.send(DISC, 0, 0)
assert client.is_ended()
