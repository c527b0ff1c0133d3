#!/bin/bash
# ndio(3) says what ndio.h declares: every prototype as it stands there, every member of the structs
# with its type, every flag. And each call has a page by its own name that leads there.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "none of our programs is run here"

# Prints what the page lacks: "kind: what", a line each; and at the end how many were looked for.
cat >"$T/compare.py" <<'EOT'
import re, sys

header = re.sub(r"/\*.*?\*/", " ", open(sys.argv[1]).read(), flags=re.S)
header = re.sub(r"^#.*$", " ", header, flags=re.M).replace('extern "C" {', " ")
page = re.sub(r"[A-Z]<([^<>]*)>", r"\1", open(sys.argv[2]).read())

def plain(text):
    return re.sub(r"\s+", " ", text).strip()

def part(name):  # of the page that is about a struct
    start = page.index("struct " + name, page.index("members of struct " + name))
    return plain(page[start:page.index("=back", start)])

looked = 0
def need(kind, what, where):
    global looked
    looked += 1
    if what not in where:
        print(f"{kind}: {what}")

whole = plain(page)
for name, body in re.findall(r"struct (\w+) \{(.*?)\n\};", header, flags=re.S):
    where = part(name)
    for member in map(plain, body.split(";")):
        pointer = re.match(r"(.*\()\*(\w+)\)(\(.*\))", member)
        names = re.match(r"((?:const )?(?:struct )?\w+ \**)(.*)", member)
        if pointer:
            need(name, member, where)
        elif member:
            kind, rest = names.groups()
            for one in rest.split(", "):
                need(name, kind, where)
                need(name, one, where)
for body in re.findall(r"enum \w+ \{(.*?)\}", header, flags=re.S):
    for constant in re.findall(r"\bNDIO_\w+", body):
        need("constant", constant, whole)
calls = re.findall(r"^((?:[\w ]|\*)+\bndio_\w+\([^{}]*?\));", header, flags=re.M)
for call in calls:
    need("call", plain(call), whole)
print(f"{len(calls)} calls, {looked > 100 and 'more than 100'} names")
EOT
is "ndio(3) has all that ndio.h has" "$(python3 "$T/compare.py" "$root/client/library/ndio.h" "$root/man/ndio.3.pod")" \
	"$(grep -cE '^[a-z].*\bndio_[a-z_]+\(' "$root/client/library/ndio.h") calls, more than 100 names"

man=$NDIO_BUILD/man
for call in $(grep -v typedef "$root/client/library/ndio.h" | grep -oE '\bndio_[a-z_]+\(' | tr -d '(' | sort -u); do
	is "$call(3) leads to ndio(3)" "$(cat "$man/$call.3")" ".so man3/ndio.3"
done

mkdir -p "$T/man/man3"
cp "$man"/ndio.3 "$man"/ndio_*.3 "$T/man/man3"
if command -v man >/dev/null; then
	like "man ndio_open" "$(MANPAGER=cat MANWIDTH=80 man -M "$T/man" ndio_open 2>&1)" "ndio_queue_reap"
else
	skip "no man here"
fi
done_testing
