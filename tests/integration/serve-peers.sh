#!/bin/bash
# ndio serve and programs that others wrote: what tells of an export, what copies it, old ways to shake
# hands, block status as several see it; and a client of our own for what no packaged one has yet.
# shellcheck disable=SC2154
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"

# ---- extended headers ----

# extended NAME SIZE|LUKS-FILE [ARG...]
extended() {
	ok "$1: extended headers, byte by byte" timeout 100 /usr/bin/python3 \
		"$root/tests/tools/extended.py" "$T/disk.sock" "${@:2}"
	ok "$1: the server ends cleanly" stop_server disk
}

truncate -s $((6 << 30)) "$T/large" || skip_all "no files of 6 GiB here"
start_serve disk "$T/large" && extended raw large
truncate -s 0 "$T/large"
truncate -s 64M "$T/large"
start_serve disk --threads 1 --direct off "$T/large" && extended "raw, one thread, buffered"
make_luks2 "$T/luks" 80M --sector-size 4096
start_serve disk --key-file "$T/pass" "$T/luks" && extended LUKS2

# ---- what is told ----

# 40 places with data, more where the file system's blocks are large; the last one is the end.
truncate -s 64M "$T/sparse"
for ((i = 1; i <= 40; i++)); do
	head -c 65536 /dev/urandom |
		dd bs=65536 seek=$((i * 25)) conv=notrunc of="$T/sparse" iflag=fullblock status=none
done

# As START LENGTH STATE, of a map of qemu's.
qemu_map() { # FILE OPTION...
	qemu-img map --output=json "${@:2}" "$1" | /usr/bin/python3 -c '
import json, sys
runs = []
for extent in json.load(sys.stdin):
    start, length, zero = extent["start"], extent["length"], extent["zero"]
    if runs and runs[-1][2] == zero:
        runs[-1][1] += length
    else:
        runs.append([start, length, zero])
for run in runs:
    print(*run)'
}

# What nbdinfo tells, in the same way: 2 and 3 are zeroes.
nbdinfo_map() {
	nbdinfo --map "$(uri disk)" | awk '{ zero = $3 >= 2 ? "True" : "False" }
		zero == last { length_ += $2; next }
		last != "" { print start, length_, last }
		{ start = $1; length_ = $2; last = zero }
		END { print start, length_, last }'
}

same_maps() {
	qemu_map "$(uri disk)" -f raw >"$T/map.qemu" && nbdinfo_map >"$T/map.nbdinfo" &&
		qemu_map "$T/sparse" -f raw >"$T/map.file" &&
		diff "$T/map.qemu" "$T/map.nbdinfo" && diff "$T/map.qemu" "$T/map.file" &&
		[ "$(wc -l <"$T/map.qemu")" -gt 70 ]
}

start_serve disk --listen 127.0.0.1:0 --export 'disk of "1" ü' "$T/sparse"
port=$(port_of disk)
ok "its map is the same for qemu and nbdinfo, and that of the file" same_maps
is "nbdinfo --list" "$(nbdinfo --list --json "nbd://127.0.0.1:$port" | /usr/bin/python3 -c '
import json, sys
listed, = json.load(sys.stdin)["exports"]
print(listed["export-name"], listed["export-size"], listed["is_read_only"], listed["contexts"])')" \
	'disk of "1" ü 67108864 False ['"'base:allocation'"']'
if command -v nbd-client >/dev/null; then
	like "nbd-client -l" "$(nbd-client -l 127.0.0.1 "$port" 2>/dev/null | tail -n 1)" \
		'^disk of "1" ü: ndio '
else
	skip "no nbd-client here"
fi
is "qemu-nbd --list" "$(qemu-nbd --list --bind 127.0.0.1 --port "$port" | grep -E 'export:|size:' |
	tr -s ' ' | head -n 2 | tr '\n' ';')" " export: 'disk of \"1\" ü'; size: 67108864;"

# ---- copies of what is sparse ----

ok "nbdcopy, by 4 connections" nbdcopy --connections=4 "$(uri disk)" "$T/copy"
ok "which has every byte" cmp "$T/copy" "$T/sparse"
ok "qemu-img" qemu-img convert -f raw -O raw "$(uri disk)" "$T/copy"
ok "which has every byte, too" cmp "$T/copy" "$T/sparse"
ok "it ends cleanly" stop_server disk

# ---- old ways to shake hands ----

# by_libnbd CODE: libnbd in the state before it connects; h.
by_libnbd() {
	timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "$1
h.connect_unix('$T/disk.sock')
$2"
}

write_and_read='
h.pwrite(data(100000), 12345)
h.flush()
same(h.pread(100000, 12345), data(100000))
h.shutdown()'

start_serve disk "$T/sparse"
ok "newstyle that isn't fixed: the name, and zeroes behind the answer" by_libnbd \
	'h.set_handshake_flags(0)' "assert h.get_protocol() == 'newstyle'$write_and_read"
ok "without those zeroes" by_libnbd 'h.set_handshake_flags(nbd.HANDSHAKE_FLAG_NO_ZEROES)' \
	"assert h.get_protocol() == 'newstyle'$write_and_read"
ok "fixed, with those zeroes and simple replies" by_libnbd \
	'h.set_handshake_flags(nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE)
h.set_request_structured_replies(False)' \
	"assert h.get_protocol() == 'newstyle-fixed' and not h.get_structured_replies_negotiated()$write_and_read"
ok "options before the export is chosen" timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "
h.set_opt_mode(True)
h.connect_unix('$T/disk.sock')
names = []
h.opt_list(lambda name, description: names.append(name))
assert names == [''], names
h.set_export_name('other')
try:
    h.opt_info()
    assert False, 'it knows another name'
except nbd.Error:
    pass
h.set_export_name('')
contexts = []
h.opt_list_meta_context(contexts.append)
assert contexts == ['base:allocation'], contexts
h.opt_info()
assert h.get_size() == 64 << 20
assert h.get_block_size(nbd.SIZE_MINIMUM) == 1 and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 << 20
h.opt_go()$write_and_read"
ok "it ends cleanly" stop_server disk

# ---- programs of nbdkit's and qemu's before it ----

# relayed NAME: what is written by that gateway to ours.
relayed() {
	random "$T/sent" 3000320
	ok "$1: writes" nbdcopy --flush "$T/sent" "$(uri relay)"
	ok "$1: and reads" bash -c 'nbdcopy "$1" - | cmp -n 3000320 - "$2"' - "$(uri relay)" "$T/sent"
	ok "$1: as it is there" bash -c 'nbdcopy "$1" - | cmp -n 3000320 - "$2"' - "$2" "$T/sent"
	ok "$1: ends cleanly" stop_server relay
}

start_serve disk --key-file "$T/pass" "$T/luks"
start_stock relay nbd uri="$(uri disk)" shared=true && relayed "nbdkit's nbd plugin" "$(uri disk)"
start_qemu_nbd relay --format raw "$(uri disk)" && relayed qemu-nbd "$(uri disk)"
ok "it ends cleanly" stop_server disk
make_tls
start_serve disk --tls-psk "$psk" --key-file "$T/pass" "$T/luks"
start_stock relay nbd socket="$T/disk.sock" tls=require tls-username=alice tls-psk="$psk" &&
	relayed "nbdkit's nbd plugin, TLS" "$(with_psk disk)"
start_qemu_nbd relay --object "tls-creds-psk,id=tls,dir=${psk%/*},endpoint=client,username=alice" \
	--image-opts "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=$T/disk.sock,file.tls-creds=tls" &&
	relayed "qemu-nbd, TLS" "$(with_psk disk)"
ok "it ends cleanly" stop_server disk
done_testing
