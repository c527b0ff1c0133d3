#!/usr/bin/python3
"""mitm.py [OPTION...] SERVER-SOCKET CHANGE... -- COMMAND...

A man in the middle between a client and an NBD server with TLS. For each CHANGE, as often as
--cases says, COMMAND runs once as the client, with SOCKET in it replaced by the path of this
relay, and the stream between them is changed at one place. What is the client's right end:

    error    status 1, and nothing else
    right    status 0: the client vouches that its data are right
    any      one of these

A client that takes longer than --limit seconds hangs. Whatever isn't as it should be is told at
the end, with the seed that brings it back, and then the status is 1.

Each of these meets one TLS record with encrypted content, chosen at random by the seed, in the
direction "up" (to the server) or "down", of whatever connection it falls on; ends of connections
are left out, since a change there may come after everything that matters:

    flip-up, flip-down      one bit is another one, in the record or its header
    drop-up, drop-down      the record is left out
    replay-up, replay-down  it comes twice
    swap-up, swap-down      it comes after the next one
    cut-up, cut-down        the stream ends in it, both ways
    reset-up, reset-down    and so does the connection
    delay-up, delay-down    its second half comes later: nothing is wrong

And these the start of every connection:

    hello-up, hello-down    one bit of what isn't encrypted yet: the handshake's first messages
    greeting                one bit of what comes before TLS
    strip-unsup, strip-policy, strip-tls-reqd
                            STARTTLS doesn't get to the server, and this is the reply
    strip-ack               ... or that it's fine; then the client is handed on as it is
    strip-flags             a greeting without "fixed newstyle"
    old-style               the greeting of an old server
    inject                  more replies behind that to STARTTLS, as if the server sent them
    replay                  what the server sent in an earlier connection
    nothing                 passes all on
"""
import argparse
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

STARTTLS = 5
ABORT = 2
REPLY_MAGIC = 0x3E889045565A9
REPLIES = {"unsup": 0x80000001, "policy": 0x80000002, "tls-reqd": 0x80000005, "ack": 1}
GREETING = b"NBDMAGICIHAVEOPT"
OLD_GREETING = b"NBDMAGIC" + struct.pack(">QQI", 0x420281861253, 8 << 20, 1) + bytes(124)
BEFORE_TLS = {"up": 4 + 16, "down": 18 + 20}  # bytes
APPLICATION_DATA = 23
HANDSHAKE = 22
QUIET = 0.5  # seconds after a change until a connection that stands still is ended
TAIL = 600  # bytes at the end of a stream in which nothing is changed


def reply(option, kind, payload=b""):
    return struct.pack(">QIII", REPLY_MAGIC, option, kind, len(payload)) + payload


class Gone(Exception):
    pass


def recv_exactly(sock, count):
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise Gone
        data += part
    return data


class Case:
    """One run of the client: what is to be changed, and what was."""

    def __init__(self, what, place, rng):
        self.kind, _, self.direction = what.rpartition("-")
        if self.direction not in BEFORE_TLS:
            self.kind, self.direction = what, None
        self.place = place  # bytes of encrypted records of that direction
        self.rng = rng
        self.lock = threading.Lock()
        self.passed = {"up": 0, "down": 0}
        self.done = []  # what was changed
        self.plain_options = []  # of the client, but for STARTTLS and ABORT
        self.harmless = False  # nobody can tell this change from nothing

    def takes(self, direction, length):
        """Is it this encrypted record's turn?"""
        with self.lock:
            before = self.passed[direction]
            self.passed[direction] += length
            return self.direction == direction and self.kind != "hello" and \
                before <= self.place < before + length


class Connection:
    def __init__(self, relay, case, client):
        self.relay = relay
        self.case = case
        self.client = client
        self.server = socket.socket(socket.AF_UNIX)
        self.record = b""  # what the server sent
        self.active = time.monotonic()
        self.changed = False

    def end(self, reset=False):
        for sock in (self.client, self.server):
            try:
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                    struct.pack("ii", 1, 0))
                    sock.shutdown(socket.SHUT_RD)
                else:
                    sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def note(self, text):
        self.changed = True
        self.active = time.monotonic()
        with self.case.lock:
            self.case.done.append(text)

    # Before TLS.

    def flipped(self, data, first=0):
        at = self.case.rng.randrange(first, len(data))
        bit = self.case.rng.randrange(8)
        return at, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]

    def strip(self, how):
        """The client's options never get to the server."""
        greeting = recv_exactly(self.server, 18)
        if how == "flags":
            greeting = greeting[:16] + b"\0\2"
        self.note("stripped")  # first: the client may have ended by then
        self.client.sendall(OLD_GREETING if how == "old-style" else greeting)
        flags = recv_exactly(self.client, 4)
        self.server.sendall(flags)
        while True:
            _, option, length = struct.unpack(">QII", recv_exactly(self.client, 16))
            recv_exactly(self.client, length)
            if option not in (STARTTLS, ABORT):
                self.case.plain_options.append(option)
            if option == ABORT:
                return False
            self.client.sendall(reply(option, REPLIES.get(how, 1)))
            if option == STARTTLS and how == "ack":
                return True

    def replay(self):
        self.note("replayed")
        for at in range(0, len(self.relay.old_session), 1000):
            self.client.sendall(self.relay.old_session[at:at + 1000])
            while select.select([self.client], [], [], 0.02)[0]:
                if not self.client.recv(1 << 16):
                    return

    def before_tls(self):
        kind = self.case.kind
        if kind.startswith("strip-") or kind == "old-style":
            return self.strip(kind.removeprefix("strip-"))
        self.greeting = recv_exactly(self.server, 18)
        greeting, at = self.greeting, None
        if kind == "greeting":
            at, greeting = self.flipped(greeting)
            self.note(f"bit of byte {at} of the greeting")
        self.client.sendall(greeting)
        self.server.sendall(recv_exactly(self.client, BEFORE_TLS["up"]))
        answer = recv_exactly(self.server, 20)
        if kind == "inject":
            answer += reply(STARTTLS, 1) + reply(3, 2, b"\0\0\0\4evil") + reply(3, 1)
            self.note("injected")
        self.client.sendall(answer)
        self.record += self.greeting + answer
        return True

    # TLS.

    def records(self, source, target, direction):
        """Passes records on, one by one."""
        held = None
        while True:
            header = recv_exactly(source, 5)
            record = header + recv_exactly(source, struct.unpack(">H", header[3:])[0])
            self.active = time.monotonic()
            if direction == "down":
                self.record += record
            if self.case.kind == "hello" and direction == self.case.direction and \
                    header[0] == HANDSHAKE:
                at, record = self.flipped(record)
                # Nobody looks at that version.
                self.case.harmless |= at in (1, 2)
                self.note(f"bit of byte {at} of the first message")
            elif header[0] == APPLICATION_DATA and self.case.takes(direction, len(record)):
                kind = self.case.kind
                self.note(f"{kind} of a record of {len(record)} bytes")
                if kind == "flip":
                    _, record = self.flipped(record)
                elif kind == "drop":
                    continue
                elif kind == "replay":
                    record += record
                elif kind == "swap":
                    held = record
                    continue
                elif kind in ("cut", "reset"):
                    target.sendall(record[:self.case.rng.randrange(len(record))])
                    self.end(kind == "reset")
                    return
                elif kind == "delay":
                    half = len(record) // 2
                    target.sendall(record[:half])
                    time.sleep(self.case.rng.uniform(0.1, 0.4))
                    record = record[half:]
            if held:
                record, held = record + held, None
            target.sendall(record)

    def bytes(self, source, target):
        while True:
            part = source.recv(1 << 16)
            if not part:
                raise Gone
            target.sendall(part)

    def pump(self, source, target, direction):
        try:
            if self.case.kind == "strip-ack":
                self.bytes(source, target)
            else:
                self.records(source, target, direction)
        except (Gone, OSError):
            pass
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def watch(self, threads):
        """A length that isn't true makes its reader wait; that isn't our client's doing."""
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
            if self.changed and self.case.kind != "delay" and \
                    time.monotonic() - self.active > QUIET:
                self.end()

    def run(self):
        try:
            if self.case.kind == "replay":
                self.replay()
            else:
                self.server.connect(self.relay.server)
                if self.before_tls():
                    threads = [threading.Thread(target=self.pump, args=args, daemon=True)
                               for args in ((self.client, self.server, "up"),
                                            (self.server, self.client, "down"))]
                    for thread in threads:
                        thread.start()
                    self.watch(threads)
        except (Gone, OSError):
            pass
        self.end()
        self.client.close()
        self.server.close()
        if self.case.kind == "nothing":
            self.relay.old_session = self.record


class Relay:
    def __init__(self, server, path):
        self.server = server
        self.path = path
        self.case = None
        self.old_session = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=Connection(self, self.case, client).run,
                             daemon=True).start()

    def run(self, what, place, seed, command, limit):
        """One case; the client's status, None if it hung, and what it said."""
        case = self.case = Case(what, place, random.Random(seed))
        command = [word.replace("SOCKET", self.path) for word in command]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, start_new_session=True) as client:
            try:
                said = client.communicate(timeout=limit)[0]
                status = client.returncode
            except subprocess.TimeoutExpired:
                os.killpg(client.pid, 9)
                said = client.communicate()[0]
                status = None
        return case, status, said.decode(errors="replace").strip()


def wanted(case, expect):
    if expect:
        return expect
    if case.kind in ("delay", "nothing") or not case.done:
        return "right"
    if case.harmless or case.kind == "greeting":
        return "any"
    return "error"


def judge(case, status, expect):
    """What is wrong, or None."""
    if case.plain_options:
        return f"options in clear text: {case.plain_options}"
    if status is None:
        return "it hung"
    if status not in {"error": (1,), "right": (0,), "any": (0, 1)}[wanted(case, expect)]:
        return f"status {status}, where {wanted(case, expect)} is right"
    return None


def main():
    split = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--limit", type=float, default=20)
    parser.add_argument("--expect", choices=("error", "right", "any"))
    parser.add_argument("server")
    parser.add_argument("changes", nargs="+")
    options = parser.parse_args(sys.argv[1:split])
    command = sys.argv[split + 1:]

    with tempfile.TemporaryDirectory() as folder:
        relay = Relay(options.server, folder + "/mitm.sock")
        first, status, said = relay.run("nothing", 0, 0, command, options.limit)
        if status != 0 and not options.expect:
            sys.exit(f"nothing was changed, and yet: status {status}: {said}")
        bad = reached = asked = 0
        sentences = set()
        for what in options.changes:
            for number in range(options.cases):
                seed = options.seed + number
                rng = random.Random(f"{what} {seed}")
                total = first.passed.get(what.rpartition("-")[2], 0)
                place = rng.randrange(max(1, int(total * 0.9) - TAIL))
                # How the same requests are packed into records differs from run to run: where fewer
                # bytes passed than in the first one, earlier.
                for earlier in (1, 2, 4, 8):
                    case, status, said = relay.run(what, place // earlier, seed, command,
                                                   options.limit)
                    if case.done or what == "nothing":
                        break
                asked += what != "nothing"
                reached += bool(case.done)
                wrong = judge(case, status, options.expect)
                sentences.add((what, said.splitlines()[-1] if said and status else ""))
                if wrong:
                    bad += 1
                    print(f"{what} --seed {seed}: {wrong}; {case.done}: {said}")
        for what, sentence in sorted(sentences):
            print(f"{what}: {sentence or 'right'}")
        print(f"{asked} changes, {reached} were made, {bad} ended wrong")
        if bad or reached < asked * 0.9:
            sys.exit(1)


if __name__ == "__main__":
    main()
