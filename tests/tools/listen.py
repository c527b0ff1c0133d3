#!/usr/bin/python3
"""listen.py PORT-FILE COMMAND...: runs a server that takes its listening socket as systemd gives
it, on a free port of localhost ($host: of that address), and writes that port to the file."""
import os
import socket
import sys

host = os.environ.get("host", "127.0.0.1")
listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
with open(sys.argv[1], "w", encoding="ascii") as file:
    file.write(str(listener.getsockname()[1]))
os.dup2(listener.fileno(), 3)
if listener.fileno() != 3:
    listener.close()
os.set_inheritable(3, True)
environment = dict(os.environ, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execvpe(sys.argv[2], sys.argv[2:], environment)
