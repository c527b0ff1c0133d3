#!/usr/bin/python3
"""hostile.py SOCKET MODE [FILE]: an NBD server on a Unix socket that misbehaves.

It offers the bytes of FILE, or 8 MiB of noise, by the fixed newstyle handshake with structured
replies, block sizes and base:allocation. Several connections, one after the other or at once.

    good             nothing wrong: what the others are measured by
    multi            and it allows several connections
    close N...       the first connection is closed after N bytes were sent, the next after the
                     next N, and so on; after the last, connections are good
    garbage          noise instead of the handshake
    garbage-replies  noise instead of the reply to the first command
    huge             the export has 2^64 - 512 bytes
    empty            the export has none
    blocks A B C     the block sizes are A, B and C
    gap              the second half of a read is left out
    twice            the second half of a read is left out and the first sent twice
    beyond           a chunk of a read that lies beside what was asked
    simple           simple replies to reads, though structured ones were agreed on
    extents          block status: no progress
    overrun          block status: far more than was asked
    tiny             block status: a byte at a time
    crumbs           block status: bytes, by the hundred thousand
    stranger         replies to a command that was never sent
    shrink           the second connection says that the export is smaller
    readonly, noflush, nofua
    flush-fails [GO] the first flush fails, once the file GO is there
    fua-fails        the first write with FUA fails
    mute             connections are taken and nothing is said
    mute-replies     commands are never answered
    mute-after N     nor are those after the first N of all connections
    drip             a byte of the handshake every 0.1 s
    drip-replies     a byte of the replies every 0.1 s
    slow             replies in pieces of 8 KiB every 0.05 s
    options          the handshake goes on with information without end
    chunks           a read is answered with chunks that say nothing, without end
    slow-chunks      one every 0.02 s
    few N            only N connections are served at a time; the others wait
    fewer N          the others are closed at once
    once             one connection is served, and then no more
    flags            the second connection says that the export can't flush
    mute-later N     connections after the first N are taken and nothing is said
    deaf-later N     connections after the first N answer no command, and those are slow
    grown-later N    connections after the first N say that the export is larger

SIGUSR1 ends the connection that is the oldest, SIGUSR2 all that there are. Each command is told on
stdout: "CONNECTION KIND".
"""
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

path, mode = sys.argv[1:3]
arguments = sys.argv[3:]
noise = random.Random(1)
data = bytearray(noise.randbytes(8 << 20))
if arguments and os.path.exists(arguments[-1]):
    with open(arguments.pop(), "rb") as file:
        data = bytearray(file.read())

HAS_FLAGS, READ_ONLY, FLUSH, FUA, TRIM, ZEROES, MULTI, CACHE = 1, 2, 4, 8, 32, 64, 256, 1024
flags = HAS_FLAGS | FLUSH | FUA | TRIM | ZEROES
if mode == "readonly":
    flags |= READ_ONLY
if mode in ("noflush", "nofua"):
    flags &= ~FUA
if mode == "noflush":
    flags &= ~FLUSH
if mode in ("shrink", "mute-after", "few", "fewer", "slow", "flags", "multi",
            "mute-later", "grown-later", "flush-fails", "fua-fails"):
    flags |= MULTI
lock = threading.Lock()
commands = 0
served = 0
to_fail = {"flush-fails": 1, "fua-fails": 1}.get(mode, 0)
failing = threading.Lock()


class Closed(Exception):
    pass


class Connection:
    def __init__(self, sock, number):
        self.sock = sock
        self.number = number
        self.counted = False
        self.left = None
        if mode == "close" and number < len(arguments):
            self.left = int(arguments[number])
        self.size = len(data)
        if mode == "huge":
            self.size = (1 << 64) - 512
        if mode == "empty":
            self.size = 0
        if mode == "grown-later" and number >= int(arguments[0]):
            self.size += 4096
        if mode == "shrink" and number > 0:
            self.size -= 4096
        self.drips = mode == "drip"
        self.flags = flags
        if mode == "flags" and number > 0:
            self.flags &= ~FLUSH

    def send(self, message):
        if self.left is not None:
            message = message[:self.left]
            self.left -= len(message)
        step = 1 if self.drips else 8192 if mode in ("slow", "deaf-later") else len(message)
        for at in range(0, len(message), step or 1):
            self.sock.sendall(message[at:at + step])
            if step < len(message):
                time.sleep(0.1 if self.drips else 0.05)
        if self.left == 0:
            raise Closed

    def recv(self, count):
        message = b""
        while len(message) < count:
            part = self.sock.recv(count - len(message))
            if not part:
                raise Closed
            message += part
        return message

    # The handshake.

    def reply(self, option, kind, payload=b""):
        self.send(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(payload)) + payload)

    def info(self, option):
        while mode == "options":
            self.reply(option, 3, struct.pack(">H", 77) + bytes(1000))
        self.reply(option, 3, struct.pack(">HQH", 0, self.size, self.flags))
        sizes = (1, 4096, 32 << 20)
        if mode == "blocks":
            sizes = tuple(int(n) for n in arguments)
        self.reply(option, 3, struct.pack(">HIII", 3, *sizes))
        self.reply(option, 1)

    def handshake(self):
        if mode == "mute" or (mode == "mute-later" and self.number >= int(arguments[0])):
            self.recv(1 << 30)
        if mode == "garbage":
            self.send(noise.randbytes(4096))
            raise Closed
        self.send(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        self.recv(4)
        while True:
            _, option, length = struct.unpack(">QII", self.recv(16))
            payload = self.recv(length)
            if option == 8:
                self.reply(option, 1)
            elif option == 10:
                self.reply(option, 4, struct.pack(">I", 1) + b"base:allocation")
                self.reply(option, 1)
            elif option == 7:
                self.info(option)
                return
            elif option == 2:
                self.reply(option, 1)
                raise Closed
            else:
                self.reply(option, 0x80000001)

    # The commands.

    def chunk(self, done, kind, handle, payload=b""):
        self.send(struct.pack(">IHHQI", 0x668E33EF, done, kind, handle, len(payload)) + payload)

    def read(self, handle, start, count):
        half = count // 2
        while mode in ("chunks", "slow-chunks"):
            self.chunk(0, 0x8001, handle, struct.pack(">IH", 5, 0))
            if mode == "slow-chunks":
                time.sleep(0.02)
        if mode == "garbage-replies":
            self.send(noise.randbytes(200))
            raise Closed
        if mode == "simple":
            self.send(struct.pack(">IIQ", 0x67446698, 0, handle) + data[start:start + count])
            return
        if mode == "beyond":
            self.chunk(1, 1, handle, struct.pack(">Q", start + count - 8) + bytes(64))
            return
        if mode == "stranger":
            self.chunk(1, 1, handle + 77, struct.pack(">Q", start) + bytes(count))
            return
        if mode in ("gap", "twice"):
            for _ in range(1 if mode == "gap" else 2):
                self.chunk(0, 1, handle, struct.pack(">Q", start) + data[start:start + half])
        else:
            self.chunk(0, 1, handle, struct.pack(">Q", start) + data[start:start + half])
            self.chunk(0, 1, handle,
                       struct.pack(">Q", start + half) + data[start + half:start + count])
        self.chunk(1, 0, handle)

    def block_status(self, handle, start, count):
        length = count
        if mode == "crumbs":
            self.chunk(1, 5, handle, struct.pack(">I", 1) + struct.pack(">IIII", 1, 3, 1, 0) * 100000)
            return
        if mode == "tiny":
            length = 1
        if mode == "extents":
            length = 0
        if mode == "overrun":
            length = 0xFFFFFE00
        self.chunk(1, 5, handle, struct.pack(">III", 1, length, 0))

    def fails(self, command_flags, kind):
        global to_fail
        meant = kind == 3 if mode == "flush-fails" else kind == 1 and command_flags & 1
        with failing:
            if not meant or not to_fail:
                return False
            to_fail -= 1
        while arguments and not os.path.exists(arguments[0]):
            time.sleep(0.01)
        return True

    def wait_for_turn(self):
        global served
        while True:
            with lock:
                if served < int(arguments[0]):
                    served += 1
                    return
            if mode == "fewer":
                raise Closed
            self.sock.settimeout(0.05)
            try:
                if not self.sock.recv(1, socket.MSG_PEEK):
                    raise Closed
            except TimeoutError:
                pass
            self.sock.settimeout(None)

    def is_muted(self):
        global commands
        with lock:
            commands += 1
            return mode == "mute-replies" or \
                (mode == "mute-after" and commands > int(arguments[0])) or \
                (mode == "deaf-later" and self.number >= int(arguments[0]))

    def serve(self):
        if mode in ("few", "fewer"):
            self.wait_for_turn()
            self.counted = True
        self.handshake()
        self.drips = mode == "drip-replies"
        while True:
            _, command_flags, kind, handle, start, count = struct.unpack(">IHHQQI", self.recv(28))
            payload = self.recv(count) if kind == 1 else b""
            print(self.number, kind, flush=True)
            if kind == 2:
                raise Closed
            if self.is_muted():
                continue
            if self.fails(command_flags, kind):
                self.chunk(1, 32769, handle, struct.pack(">IH", 5, 0))
            elif kind == 0:
                self.read(handle, start, count)
            elif kind == 7:
                self.block_status(handle, start, count)
            else:
                if kind == 1:
                    data[start:start + count] = payload
                if kind == 6:
                    data[start:start + count] = bytes(count)
                self.chunk(1, 0, handle)

    def run(self):
        try:
            self.serve()
        except (Closed, OSError):
            pass
        if self.sock in alive:
            alive.remove(self.sock)
        self.sock.close()
        if self.counted:
            global served
            with lock:
                served -= 1
        if mode == "once":
            os._exit(0)


alive = []


def end(number, _):
    for sock in alive[:1] if number == signal.SIGUSR1 else list(alive):
        alive.remove(sock)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


signal.signal(signal.SIGUSR1, end)
signal.signal(signal.SIGUSR2, end)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(16)
with open(path.removesuffix(".sock") + ".pid", "w", encoding="ascii") as file:
    file.write(str(os.getpid()))
connections = 0
while True:
    client, _ = listener.accept()
    alive.append(client)
    threading.Thread(target=Connection(client, connections).run, daemon=True).start()
    connections += 1
