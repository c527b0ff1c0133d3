#!/usr/bin/python3
"""Types lines with a tab at their end into an interactive shell.

complete.py COMMAND...: starts the shell on a terminal of its own and types each line of stdin. Those
that end in a tab are to be completed before they are run; what they run prints <ARGUMENT>... between
[[ and ]], which comes out, a line each. The other lines prepare the shell.
"""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

DEADLINE = time.monotonic() + 50


def wait_for(fd, pattern):
    seen = b""
    while not re.search(pattern, seen, re.DOTALL):
        if not select.select([fd], [], [], max(0, DEADLINE - time.monotonic()))[0]:
            sys.exit("complete.py: nothing came of it: %r" % seen)
        seen += os.read(fd, 4096)
    return re.search(pattern, seen, re.DOTALL)


def wait_for_prompt(fd):
    """The shell's editor has the terminal: a key that is typed before would be the terminal's."""
    while termios.tcgetattr(fd)[3] & termios.ICANON:
        if time.monotonic() > DEADLINE:
            sys.exit("complete.py: no prompt")
        time.sleep(0.002)


def main():
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="dumb", INPUTRC="/dev/null")
        os.execvp(sys.argv[1], sys.argv[1:])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
    for line in sys.stdin.read().splitlines():
        wait_for_prompt(fd)
        os.write(fd, line.encode() + b"\n")
        if line.endswith("\t"):
            print(wait_for(fd, rb"\[\[(.*?)\]\]").group(1).decode())
    os.write(fd, b"exit\n")
    try:
        while os.read(fd, 4096):
            pass
    except OSError:  # the shell has ended
        pass
    os.waitpid(pid, 0)


main()
