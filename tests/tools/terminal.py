#!/usr/bin/python3
"""Runs a command on a terminal of its own and answers its questions.

terminal.py SCRIPT COMMAND...: SCRIPT has a line for each question, "TEXT => ANSWER": TEXT is
waited for, then ANSWER and a newline are typed. ^C as the answer interrupts; ^SIGTERM, and others
likewise, sends the command that signal. "noecho TEXT => ..." also demands that the terminal doesn't
show what is typed, and that a passphrase never appears. What the command printed comes out, and its
status is ours; we die of the signal that it dies of. Afterwards the terminal has to echo again.
"""
import os
import pty
import select
import signal
import sys
import termios
import time

DEADLINE = time.monotonic() + 60


def fail(message, output):
    sys.stderr.write("terminal.py: %s; so far: %r\n" % (message, output))
    sys.exit(99)


def echoes(fd):
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


def read_more(fd):
    if not select.select([fd], [], [], max(0, DEADLINE - time.monotonic()))[0]:
        return None
    try:
        return os.read(fd, 4096)
    except OSError:  # the other side is closed
        return b""


def send(fd, pid, reply):
    if reply.startswith("^SIG"):
        os.kill(pid, getattr(signal, reply[1:]))
    else:
        os.write(fd, b"\x03" if reply == "^C" else reply.encode() + b"\n")


def answer(fd, pid, seen, line):
    question, reply = line.split(" => ", 1)
    quiet = question.startswith("noecho ")
    question = question[len("noecho "):] if quiet else question
    while question.encode() not in seen:
        more = read_more(fd)
        if not more:
            fail("no question like %r" % question, seen)
        seen += more
    if quiet and echoes(fd):
        fail("%r is asked with echo" % question, seen)
    send(fd, pid, reply)
    end = seen.index(question.encode()) + len(question)
    return seen[:end], seen[end:], reply if quiet else ""


def main():
    with open(sys.argv[1]) as script:
        lines = [line.rstrip("\n") for line in script if line.strip()]
    keep, other = os.openpty()  # its echo can still be looked at when the command has ended
    pid = os.fork()
    if pid == 0:
        login_tty(keep, other)
        os.execvp(sys.argv[2], sys.argv[2:])
    seen, secrets, output = b"", [], b""
    for line in lines:
        asked, seen, secret = answer(keep, pid, seen, line)
        output += asked
        if secret and secret[0] != "^":
            secrets.append(secret.encode())
    done = 0
    while True:
        if not done:
            done, status = os.waitpid(pid, os.WNOHANG)
        if select.select([keep], [], [], 0.05)[0]:
            seen += read_more(keep) or b""
        elif done:
            break
        elif time.monotonic() > DEADLINE:
            fail("it doesn't end", seen)
    output += seen
    if not echoes(keep):
        fail("the echo is off", output)
    if any(secret in output for secret in secrets):
        fail("a passphrase was shown", output)
    sys.stdout.write(output.decode(errors="replace").replace("\r", ""))
    sys.stdout.flush()
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


def login_tty(keep, fd):
    import fcntl
    os.close(keep)
    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for i in range(3):
        os.dup2(fd, i)


main()
