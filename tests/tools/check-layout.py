#!/usr/bin/python3
"""check-layout.py ROOT [CHECK...]: does the tree below ROOT keep to its layout?

CHECK: arrows (which room's files may include which), circles (of headers), alone (the engine's
headers compile by themselves, without libnbd and OpenSSL's TLS), names (a static function's is its
own), size (of what a reader of the engine reads). All of them, if none is given. What is wrong is
printed, a line each, and the status is 1 then.
"""
import collections
import concurrent.futures
import fnmatch
import glob
import os
import re
import subprocess
import sys
import tempfile

# A room's files include their own room's, and those of the lines below; nobody beside them.
ROOMS = """
    server            server/serve      client/command
    client/copy       client/attach     client/header
    client/library    client/terminal
    common
    common/locator    common/metrics
    common/nbd        common/file
    common/integrity
    common/engine
    common/tls        common/luks
    common/memory
    common/base
"""

# And these not, though they lie below: who includes, whom, and why not.
NEVER = [
    ("server/*", "client/*", "the two ends share common/ alone"),
    ("client/*", "server/*", "the two ends share common/ alone"),
    ("common/nbd/*", "common/luks/*", "no target knows LUKS"),
    ("common/file/*", "common/luks/*", "no target knows LUKS"),
    ("common/engine/request.*", "common/engine/target.*", "no request knows targets"),
    ("common/engine/request.*", "common/engine/cipher.*", "no request knows ciphers"),
]

# Where `#include` looks, beside the file's own folder: as the Makefile has it.
PATHS = {"common": ["common"], "server": ["common"], "client": ["common", "client", "client/library"]}

# What someone reads who wants to know the engine: the engine and the plugin.
TO_READ = ["common/engine/*.[ch]", "server/*.[ch]"]
LINES = 5000

# A function's definition, as the tree is formatted: its type and name, and a line that is a brace.
ATTRIBUTE = re.compile(r"__attribute__\(\((?:[^()]|\([^()]*\))*\)\)\s*")
FUNCTION = re.compile(r"^((?:\w+[ \t\n*]+)+)(\w+)\([^;{}]*\)\n\{", re.M)

# Headers that the engine's don't need.
FOREIGN = ["libnbd.h", "openssl/ssl.h"]

LEVELS = [line.split() for line in ROOMS.strip().splitlines()]
LEVEL = {room: n for n, rooms in enumerate(LEVELS) for room in rooms}


def read_includes(root, path):
    """The files of the tree that this one includes."""
    house = path.split("/")[0]
    with open(os.path.join(root, path), encoding="utf-8") as text:
        found = re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', text.read(), re.M)
    for quote, name in found:
        folders = PATHS[house] if quote == "<" else [os.path.dirname(path)] + PATHS[house]
        names = [os.path.normpath(os.path.join(folder, name)) for folder in folders]
        yield from [n for n in names if os.path.isfile(os.path.join(root, n))][:1]


def read_tree(root):
    """path -> what it includes, of every source of the three houses."""
    paths = [os.path.relpath(path, root) for house in PATHS
             for path in glob.glob(os.path.join(root, house, "**", "*.[ch]"), recursive=True)]
    if not paths:
        sys.exit(f"check-layout.py: {root}: no sources here")
    return {path: list(read_includes(root, path)) for path in sorted(paths)}


def why_not(path, included):
    """Why this file may not include that one, or None."""
    here, there = os.path.dirname(path), os.path.dirname(included)
    for who, whom, why in NEVER:
        if fnmatch.fnmatch(path, who) and fnmatch.fnmatch(included, whom):
            return why
    if here == there or here not in LEVEL or LEVEL.get(there, -1) > LEVEL[here]:
        return None
    if there not in LEVEL:
        return "outside of all rooms"
    return "upwards" if LEVEL[there] < LEVEL[here] else "sideways"


def check_arrows(_, tree):
    for path, included in tree.items():
        if os.path.dirname(path) not in LEVEL:
            yield f"{path}: there is no room {os.path.dirname(path)}"
        for other in included:
            why = why_not(path, other)
            if why:
                yield (f"{path}: includes {other}: {os.path.dirname(path)} -> "
                       f"{os.path.dirname(other)}: {why}")


def check_circles(_, tree):
    """Each header that can be reached from itself, by a shortest way."""
    seen = set()
    for start in (path for path in tree if path.endswith(".h")):
        came_from, to_do = {}, collections.deque([start])
        while to_do and start not in came_from:
            path = to_do.popleft()
            for other in tree.get(path, []):
                if other not in came_from:
                    came_from[other] = path
                    to_do.append(other)
        if start not in came_from or start in seen:
            continue
        circle = [start, came_from[start]]
        while circle[-1] != start:
            circle.append(came_from[circle[-1]])
        seen.update(circle)
        yield f"{start}: a circle: {' -> '.join(reversed(circle))}"


def compile_alone(root, header, without):
    name = header[len("common/"):]
    run = subprocess.run(
        [os.environ.get("CC") or "gcc", "-std=gnu11", "-D_GNU_SOURCE", "-fsyntax-only", "-I", without,
         "-I", os.path.join(root, "common"),
         "-x", "c", "-"],
        input=f'#include "{name}"\n', capture_output=True, text=True, check=False)
    errors = re.findall(r"error: (?:#error )?(.*)", run.stderr) + [run.stderr]
    return [f"{header}: doesn't compile alone: {errors[0]}"] if run.returncode else []


def check_alone(root, tree):
    headers = [path for path in tree if fnmatch.fnmatch(path, "common/engine/*.h")]
    with tempfile.TemporaryDirectory() as without, concurrent.futures.ThreadPoolExecutor(2) as pool:
        for name in FOREIGN:
            os.makedirs(os.path.dirname(os.path.join(without, name)), exist_ok=True)
            with open(os.path.join(without, name), "w", encoding="utf-8") as header:
                header.write(f"#error <{name}> is not for the engine's headers\n")
        for wrong in pool.map(lambda header: compile_alone(root, header, without), headers):
            yield from wrong


def read_functions(root, path):
    """name -> is it static, of the functions that are defined here."""
    with open(os.path.join(root, path), encoding="utf-8") as text:
        found = FUNCTION.findall(ATTRIBUTE.sub("", text.read()))
    return {name: "static" in kind.split() for kind, name in found}


def check_names(root, tree):
    """Or a backtrace doesn't say where it has been, and a breakpoint stops elsewhere too."""
    seen = {}
    for path in tree:
        for name, is_static in read_functions(root, path).items():
            other, other_is_static = seen.setdefault(name, (path, is_static))
            if other != path and (is_static or other_is_static):
                yield f"{path}: {name}() is a function of {other}, too"


def check_size(root, tree):
    paths = [path for path in tree if any(
        fnmatch.fnmatch(path, p) and path.count("/") == p.count("/") for p in TO_READ)]
    lines = 0
    for path in paths:
        with open(os.path.join(root, path), "rb") as text:
            lines += text.read().count(b"\n")
    if lines > LINES:
        yield f"{' and '.join(TO_READ)}: {lines} lines, and {LINES} is all that a reader has time for"


CHECKS = {"arrows": check_arrows, "circles": check_circles, "alone": check_alone, "names": check_names,
          "size": check_size}


def main():
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(CHECKS):
        sys.exit(f"usage: check-layout.py ROOT [{'|'.join(CHECKS)}]...")
    root = sys.argv[1]
    tree = read_tree(root)
    wrong = [line for name in sys.argv[2:] or CHECKS for line in CHECKS[name](root, tree)]
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)


main()
