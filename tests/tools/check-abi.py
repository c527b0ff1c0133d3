#!/usr/bin/python3
"""check-abi.py LIBRARY NDIO.H ABI: do programs that were built with the release that ABI is from run
with this library? What breaks them is printed, and the status is 1 then.

check-abi.py --write LIBRARY NDIO.H ABI: describes the library in ABI.

ABI is abigail's description of what ndio.h declares. More calls are fine, and more members at the end
of a struct whose first one is struct_size.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml


def describe(library, header, path):
    """Writes what the library offers by its header, without places in sources, folders and what it
    needs itself."""
    with tempfile.TemporaryDirectory() as headers:
        shutil.copy(header, headers)
        subprocess.run(["abidw", "--headers-dir", headers, "--drop-private-types", "--no-corpus-path",
                        "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed",
                        "--drop-undefined-syms", "--out-file", path, library], check=True)
    if not structs_with_size(xml.parse(path)):
        sys.exit(f"check-abi.py: {library}: no debug information: build it with -g")


def structs_with_size(tree):
    found = {}
    for struct in tree.iter("class-decl"):
        first = struct.find("data-member/var-decl")
        if first is not None and first.get("name") == "struct_size":
            found[struct.get("name")] = struct
    return found


def forget_additions(path, before):
    """Takes out of a description what was added at the ends of structs. What went into the padding
    that was there stays: struct_size doesn't tell who has it."""
    tree, old = xml.parse(path), structs_with_size(xml.parse(before))
    for name, struct in structs_with_size(tree).items():
        if name not in old:
            continue
        size = int(old[name].get("size-in-bits"))
        for member in struct.findall("data-member"):
            if int(member.get("layout-offset-in-bits")) >= size:
                struct.remove(member)
                struct.set("size-in-bits", str(size))
    tree.write(path)


def main():
    write = sys.argv[1:2] == ["--write"]
    library, header, abi = sys.argv[1 + write:]
    if write:
        describe(library, header, abi)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        now = os.path.join(folder, "now.abi")
        describe(library, header, now)
        forget_additions(now, abi)
        return subprocess.run(["abidiff", "--no-added-syms", abi, now], check=False).returncode and 1


sys.exit(main())
