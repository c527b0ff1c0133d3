#!/usr/bin/python3
"""record.py SOCKET SERVER-SOCKET FILE: a relay that writes what passes, both ways, to FILE."""
import os
import socket
import sys
import threading

path, server, record = sys.argv[1:4]
output = open(record, "ab", buffering=0)
lock = threading.Lock()


def relay(source, target):
    while True:
        try:
            part = source.recv(1 << 20)
        except OSError:
            part = b""
        if not part:
            break
        with lock:
            output.write(part)
        try:
            target.sendall(part)
        except OSError:
            break
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(16)
with open(path.removesuffix(".sock") + ".pid", "w", encoding="ascii") as file:
    file.write(str(os.getpid()))
while True:
    client, _ = listener.accept()
    inner = socket.socket(socket.AF_UNIX)
    inner.connect(server)
    for pair in ((client, inner), (inner, client)):
        threading.Thread(target=relay, args=pair, daemon=True).start()
