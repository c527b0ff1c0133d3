#!/bin/bash
# ndio serve of several disks, by a table or by their names: each is found by its name, opened by its own
# key, and fenced by itself; and a table with a mistake serves nothing.
# shellcheck disable=SC2154 source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

ndio=$NDIO_BUILD/ndio
serve=$NDIO_BUILD/ndio-serve
small=(--luks2-keyslots-size 1M --offset 4096 --sector-size 4096)
mkdir "$T/credentials"
(umask 077 && printf 'another key' >"$T/credentials/b.key")

make_luks2 "$T/a" 8M "${small[@]}"
truncate -s 9M "$T/b"
cryptsetup --batch-mode luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
	"${small[@]}" "$T/b" "$T/credentials/b.key"
make_luks2 "$T/c" 5M "${small[@]}"
random "$T/raw" 3000001
truncate -s 1M "$T/default"

table() { # LINE...
	printf '%s\n' "$@" >"$T/table"
}

# named CODE: Python; connect(NAME) is a connection to that export.
named() {
	timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "
def connect(name):
    h = nbd.NBD()
    h.set_export_name(name)
    h.connect_unix('$T/disk.sock')
    return h
$1"
}

# ---- a table ----

start_serve behind "$T/c"
table '# the disks' \
	"accounts   $T/a        $T/pass                        description=The%20accounts" \
	"mail%20box $T/b        \$CREDENTIALS_DIRECTORY/b.key" \
	"gate	$(uri behind)	$T/pass	reconnect=5" \
	"raw        $T/raw      none                           read-only,direct=off" \
	"\"\"         $T/default  none"
CREDENTIALS_DIRECTORY=$T/credentials start_serve disk --exports "$T/table"
ok "it says whose table it serves" said disk "^ndio serve: $T/table: listening on $T/disk.sock\$"

listed() {
	nbdinfo --list --json "$(uri disk)" | python3 -c '
import json, sys
for e in json.load(sys.stdin)["exports"]:
    print(e["export-name"], e["export-size"], e.get("description", ""), sep="|")' |
		sed -E 's/ndio [0-9.]* instance=[0-9a-f]{32}/WHO/'
}
is "all are listed, with what is in them, the user's words, who serves them and how a server fares" "$(listed)" \
	"accounts|6291456|LUKS2, sectors of 4096 bytes; The accounts; WHO fences
mail box|7340032|LUKS2, sectors of 4096 bytes; WHO fences
gate|3145728|LUKS2, sectors of 4096 bytes; WHO; server up, away 0 s, lost 0 times, 0 bytes unflushed, fenced
raw|3000001|WHO fences
|1048576|WHO fences"

# Both at once.
copies() {
	random "$T/sent.a" 6291456 && random "$T/sent.b" 7340032
	nbdcopy --flush "$T/sent.a" "$(uri disk accounts)" &
	nbdcopy --flush "$T/sent.b" "$(uri disk mail%20box)" && wait $! &&
		nbdcopy "$(uri disk accounts)" "$T/back.a" && cmp "$T/back.a" "$T/sent.a" &&
		nbdcopy "$(uri disk mail%20box)" "$T/back.b" && cmp "$T/back.b" "$T/sent.b"
}
ok "nbdcopy to two with different keys, and back" copies
random "$T/sent.c" 3145728
through() {
	nbdcopy --flush "$T/sent.c" "$(uri disk gate)" && nbdcopy "$(uri disk gate)" "$T/back.c" &&
		cmp "$T/back.c" "$T/sent.c"
}
ok "and to one that another server has" through
ok "one is read-only, and the others aren't" named '
h = connect("raw")
assert h.is_read_only() and not connect("accounts").is_read_only()
same(h.pread(h.get_size(), 0), bytearray(open("'"$T/raw"'", "rb").read()))'
ok "no name is the empty one" test "$(nbdinfo --size "$(uri disk)")" = 1048576
ok "an old client's name, too" /usr/bin/python3 -c '
import socket, struct, sys
def size(name):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    assert len(s.recv(18, socket.MSG_WAITALL)) == 18
    s.sendall(struct.pack(">IQII", 3, 0x49484156454f5054, 1, len(name)) + name)
    got = s.recv(10, socket.MSG_WAITALL)
    return struct.unpack(">QH", got)[0] if got else None
assert size(b"mail box") == 7340032 and size(b"accounts") == 6291456 and size(b"") == 1048576
assert size(b"mail%20box") is None' "$T/disk.sock"
ok "a name that there isn't is told, as a log may have it" named '
for i in range(3):
    try:
        connect("accounts\033[2J\nndio serve: all is well")
        assert False
    except nbd.Error as e:
        assert "no export named" in str(e), e'
ok "with the client" said disk \
	"^ndio serve: client process [0-9]+ of user [0-9]+: it asks for \"accounts\?\[2J\?ndio serve: all is well\": there is no such export$"
ok "an export fences its own clients, and no other's" named '
session = ";ndio-session=" + "0123456789abcdef" * 2 + "."
old, other = connect("accounts" + session + "1"), connect("raw" + session + "7")
old.pread(512, 0)
new = connect("accounts" + session + "2")
fails("ESHUTDOWN", old.pread, 512, 0)
new.pread(512, 0)
other.pread(512, 0)'
ok "it ends cleanly" stop_server disk
ok "and so does the other" stop_server behind

# What the client finds with no server between.
holds_plain() { # FILE KEY DATA
	rm -f "$T/plain"
	"$ndio" copy --src-key-file "$2" "$1" "$T/plain" && cmp "$T/plain" "$3"
}
ok "the first is encrypted by its key" holds_plain "$T/a" "$T/pass" "$T/sent.a"
ok "the second by its own" holds_plain "$T/b" "$T/credentials/b.key" "$T/sent.b"
ok "and the one behind" holds_plain "$T/c" "$T/pass" "$T/sent.c"

# ---- disks of the command line ----

start_serve disk --key-fd 3 "$T/a" "$T/c" 3<"$T/pass"
ok "each of several has its file's name, and one key opens them" named '
assert connect("a").get_size() == 6291456 and connect("c").get_size() == 3145728'
ok "without a name there is none" not nbdinfo "$(uri disk)"
ok "it ends cleanly" stop_server disk
# shellcheck disable=SC2016
is "a command gets the first one's URI" \
	"$("$serve" --socket "$T/run.sock" --run 'nbdinfo --size "$uri"' "$T/default" "$T/raw" 2>/dev/null)" \
	1048576

# ---- what serves nothing ----

refuses() { # NAME REGEX LINE...
	local name=$1 regex=$2

	shift 2
	table "$@"
	timeout 30 "$serve" --socket "$T/x.sock" --exports "$T/table" >"$T/refused" 2>&1 </dev/null
	is "$name: status" $? 1
	like "$name: one message, with the line" "$(without_limits "$T/refused")" "^ndio serve: $T/table$regex"
	is "$name: and no other" "$(without_limits "$T/refused" | grep -c "")" 1
}

good="good $T/default none"
ln -s "$T/raw" "$T/link"
printf wrong >"$T/wrong"
chmod 600 "$T/wrong"
refuses "a name twice" ":3: line 1 is for the name \"good\" already$" "$good" "" "good $T/raw none"
refuses "a file twice" ":2: $T/link and $T/raw \(line 1\): the same, or one is on the other" \
	"one $T/raw none read-only" "two $T/link none"
refuses "an export twice" ":1: .* and .* \(line 2\): the same" \
	"one $(uri behind x) none" "two $(uri behind x) none read-only"
refuses "a key that another's client could write to" ":2: .*the key file would be overwritten$" \
	"a $T/a $T/wrong" "keys $T/wrong none"
refuses "a header likewise" ":2: .*the header would be overwritten$" \
	"a $T/a $T/pass header=$T/c" "c $T/c none"
refuses "no line" ": no line has an export$" "# $good"
refuses "a mistake" ":2: unknown option \"sync\"$" "$good" "bad $T/raw none sync"
refuses "a missing file" ":2: $T/none: .*No such file" "$good" "bad $T/none none"
refuses "a missing key" ":2: key file $T/none: No such file" "$good" "bad $T/a $T/none"
refuses "a wrong key" ":2: $T/a: " "$good" "bad $T/a $T/wrong"
refuses "no folder of credentials" ":2: \\\$CREDENTIALS_DIRECTORY isn't set: .*LoadCredential=b.key:PATH" \
	"$good" "bad $T/b \$CREDENTIALS_DIRECTORY/b.key"
refuses "a server that isn't there" ":2: nbd\+unix:///\?socket=$T/none" "$good" \
	"bad nbd+unix:///?socket=$T/none none"

# The manual's table, and a mistake behind it.
page=$root/man/ndio-serve.8.pod
mapfile -t lines < <(sed -n '/^=head1 TABLE OF EXPORTS/,/^=head1/s/^ //p' "$page")
refuses "the manual's table is right" ":$((${#lines[@]} + 1)): the second field" "${lines[@]}" nonsense
undescribed() {
	local option

	for option in $(sed -n 's/^\t{ "\([a-z-]*\)", [MD][EI][MS].*/\1/p' "$root/server/serve/table.c"); do
		sed -n '/^=head1 TABLE OF EXPORTS/,/^=head1/p' "$page" | grep -qE "B<$option(=)?>" ||
			echo "$option"
	done
}
is "and the manual has every option" "$(undescribed)" ""
rm "$T/table"
mkfifo "$T/table"
timeout 30 "$serve" --exports "$T/table" >"$T/refused" 2>&1
like "a table that is none" "$(cat "$T/refused")" "^ndio serve: $T/table: not a plain file$"
ok "nothing was served" test ! -e "$T/x.sock"
rm "$T/table"

usage() { # REGEX ARG...
	local regex=$1 status

	shift
	timeout 30 "$serve" "$@" >"$T/refused" 2>&1 </dev/null
	status=$?
	cat "$T/refused"
	[ $status = 2 ] && grep -qE "$regex" "$T/refused"
}
mkdir "$T/other"
ok "a table and a disk" usage "^ndio serve: --exports or disks, not both" --exports "$T/table" "$T/raw"
ok "a table and a name" usage "names and keys are in the table" --exports "$T/table" --export x
ok "a table and a key" usage "names and keys are in the table" --exports "$T/table" --key-file x
ok "a name that is no text" usage "is not UTF-8" --export $'\xff' "$T/raw"
ok "one name for two" usage "are for one disk" --export x "$T/a" "$T/c"
ok "two of one name" usage "both would be \"raw\"" "$T/raw" "$T/other/raw"
ok "a server without a name" usage "beside other disks it needs a name" "$T/raw" "$(uri behind)"
ok "no disk" usage "which disk" --read-only

table "one $T/raw none read-only" "two $T/link none"
start_serve disk --read-only --exports "$T/table"
ok "one file twice is no matter if nobody writes" named '
assert connect("one").is_read_only() and connect("two").is_read_only()'
ok "it ends cleanly" stop_server disk

# ---- many ----

# With little memory to lock, every key is; buffers aren't, and needn't be there.
many() {
	local i lines=()

	for ((i = 0; i < 24; i++)); do
		cp --sparse=always "$T/c" "$T/disk$i"
		lines+=("disk$i $T/disk$i $T/many.key")
	done
	for (( ; i < 64; i++)); do
		truncate -s 1M "$T/disk$i"
		lines+=("disk$i $T/disk$i none")
	done
	table "${lines[@]}"
	cp "$T/pass" "$T/many.key"
	chmod 666 "$T"/disk? "$T"/disk??
	chmod 644 "$T/many.key" "$T/table"
	chmod 1777 "$T"
	install -m 755 "$serve" "$T/ndio-serve"
	start_server disk prlimit --memlock=1048576 "${nobody[@]}" "$T/ndio-serve" --socket "$T/disk.sock" \
		--pid-file "$T/disk.pid" --exports "$T/table"
}
if [ "$(id -u)" = 0 ]; then
	ok "64 exports, 24 keys, and 1 MiB to be locked" many
	locked=$(sed -n 's/^VmLck:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${server_pids[disk]}/status")
	ok "the keys are locked" test "$locked" -ge 96
	is "one client asks about all" "$(nbdinfo --list "$(uri disk)" | grep -c "^export=")" 64
	ok "and 24 have a client each at once" named '
handles = [connect(f"disk{i}") for i in range(24)]
for i, h in enumerate(handles):
    h.pwrite(data(4096, i), 4096 * i)
for i, h in enumerate(handles):
    same(h.pread(4096, 4096 * i), data(4096, i))'
	ok "it ends cleanly" stop_server disk
else
	skip "only root can become another user" 5
fi
done_testing
