#!/usr/bin/python3
"""refuse.py CALL ERROR COMMAND...: runs a command to which a system call answers with an error."""
import ctypes
import errno
import os
import signal
import struct
import sys

calls = {"io_uring_setup": 425, "io_uring_register": 427}
call, error, command = calls[sys.argv[1]], getattr(errno, sys.argv[2]), sys.argv[3:]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
code = b"".join(struct.pack("HBBI", *i) for i in [
    (LOAD, 0, 0, 0),
    (JUMP_IF_EQUAL, 0, 1, call),
    (RETURN, 0, 0, FAIL | error),
    (RETURN, 0, 0, ALLOW),
])
filter = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(filter))
libc = ctypes.CDLL(None, use_errno=True)
for args in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program)]:
    if libc.prctl(*args):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
for ignored in signal.SIGPIPE, signal.SIGXFSZ:  # by Python, which the command would inherit
    signal.signal(ignored, signal.SIG_DFL)
os.execvp(command[0], command)
