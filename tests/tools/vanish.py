#!/usr/bin/python3
"""vanish.py SOCKET COUNT [CA-CERTIFICATE]: clients that go away without a word, eight there at a time: in
the middle of the handshake, of heads and data of what they ask for, and of replies, which they
may have asked for and not taken. With a certificate by TLS, whose records are cut as well.
"""
import random
import select
import socket
import ssl
import struct
import sys

IHAVEOPT = 0x49484156454F5054
EXPORT_NAME, STARTTLS = 1, 5
READ, WRITE = 0, 1
AT_A_TIME = 8

path, count = sys.argv[1], int(sys.argv[2])
context = None
if len(sys.argv) > 3:
    context = ssl.create_default_context(cafile=sys.argv[3])
noise = random.Random(1)


class Client:
    """All that it says goes through the two buffers of TLS, or just to the socket."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.tls = None

    def get_raw(self, length):
        got = b""
        while len(got) < length:
            part = self.sock.recv(length - len(got))
            assert part, "the server has hung up"
            got += part
        return got

    def wired(self, plain):
        """What goes over the wire for this."""
        if not self.tls:
            return plain
        self.tls.write(plain)
        return self.outgoing.read()

    def get(self, length):
        if not self.tls:
            return self.get_raw(length)
        got = b""
        while len(got) < length:
            try:
                got += self.tls.read(length - len(got))
            except ssl.SSLWantReadError:
                self.feed()
        return got

    def feed(self):
        part = self.sock.recv(65536)
        assert part, "the server has hung up"
        self.incoming.write(part)

    def option(self, option, payload=b""):
        return struct.pack(">QII", IHAVEOPT, option, len(payload)) + payload

    def greet(self):
        self.get_raw(18)
        self.sock.sendall(struct.pack(">I", 3))

    def secure(self, leaves):
        """TLS; or a part of what the client sends first, and then perhaps noise."""
        self.sock.sendall(self.option(STARTTLS))
        assert struct.unpack(">QIII", self.get_raw(20))[2] == 1
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        while True:
            try:
                self.tls.do_handshake()
                self.sock.sendall(self.outgoing.read())
                return
            except ssl.SSLWantReadError:
                said = self.outgoing.read()
                if leaves:
                    self.sock.sendall(said[:noise.randrange(len(said))] +
                                      noise.randbytes(noise.choice([0, 500])))
                    return
                self.sock.sendall(said)
                self.feed()

    def open(self):
        self.sock.sendall(self.wired(self.option(EXPORT_NAME)))
        self.size, _ = struct.unpack(">QH", self.get(10))

    def ask(self):
        """Some requests, cut anywhere."""
        asked = b""
        for cookie in range(noise.randrange(1, 12)):
            length = noise.choice([512, 5000, 300000, 3 << 20])
            kind = noise.choice([READ, WRITE])
            asked += struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie,
                                 noise.randrange(self.size - length), length)
            asked += bytes(length if kind == WRITE else 0)
        wire = self.wired(asked)
        self.sock.setblocking(False)
        try:
            self.sock.send(wire[:noise.randrange(1, len(wire))])
        except BlockingIOError:
            pass

    def take(self):
        """Some of the replies, if there are any."""
        if noise.random() < 0.5 and select.select([self.sock], [], [], 0.02)[0]:
            try:
                self.sock.recv(noise.randrange(1, 100000))
            except ConnectionResetError:
                pass


def one():
    client = Client()
    leaves = noise.random() < 0.1
    client.greet()
    if context:
        client.secure(leaves)
    elif leaves:
        client.sock.sendall(client.option(EXPORT_NAME, b"name")[:noise.randrange(1, 20)])
    if not leaves:
        client.open()
        client.ask()
        client.take()
    return client


there = []
for i in range(count):
    there.append(one())
    if len(there) == AT_A_TIME:
        there.pop(noise.randrange(AT_A_TIME)).sock.close()
for client in there:
    client.sock.close()
