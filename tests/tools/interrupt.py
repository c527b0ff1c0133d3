#!/usr/bin/python3
"""Runs a command, and sends it a signal when it is where it should be.

interrupt.py [--group] SIGNAL CONDITION COMMAND...: CONDITION is a shell command that is tried until
it succeeds; $pid is the command's process. What it prints, if anything, is the process that gets the
signal; with --group all of the command's group do, as by a terminal's Ctrl-C. What the command
prints comes out, and then how it ended: "status N", or "ended by SIGINT", which a shell's status of
130 doesn't tell.
"""
import os
import signal
import subprocess
import sys
import time

DEADLINE = time.monotonic() + 40


def main():
    arguments = sys.argv[1:]
    group = arguments[0] == "--group"
    name, condition, *command = arguments[group:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    while process.poll() is None and time.monotonic() < DEADLINE:
        tried = subprocess.run(["bash", "-c", condition], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "pid": str(process.pid)})
        if tried.returncode == 0:
            break
        time.sleep(0.02)
    else:
        process.kill()
        sys.exit("interrupt.py: it never got there, and printed: %r" % process.communicate()[0])
    number = getattr(signal, name)
    if group:
        os.killpg(process.pid, number)
    else:
        os.kill(int(tried.stdout or process.pid), number)
    try:
        output = process.communicate(timeout=max(1, DEADLINE - time.monotonic()))[0]
    except subprocess.TimeoutExpired:
        process.kill()
        sys.exit("interrupt.py: it goes on after %s" % name)
    sys.stdout.write(output.decode(errors="replace"))
    if process.returncode < 0:
        print("ended by", signal.Signals(-process.returncode).name)
    else:
        print("status", process.returncode)


main()
