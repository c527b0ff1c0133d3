#!/bin/bash
# fio writes at depth 16 in blocks of all sizes, and reads back what it wrote.
. "$(dirname "$0")/../lib/lib.sh"

if ! command -v fio >/dev/null || ! fio --enghelp=nbd >/dev/null 2>&1; then
	skip_all "no fio with the nbd engine here"
fi
size=48M
[ -z "$NDIO_SANITIZE" ] || size=12M

# verified NAME OPTION...: over the server called disk. Each job has a connection of its own.
verified() {
	local name=$1

	shift
	ok "$name" timeout 120 fio --name=verify --thread --ioengine=nbd --uri="$(uri disk)" \
		--rw=randwrite --iodepth=16 --size=$size --verify=crc32c --verify_fatal=1 \
		--verify_state_save=0 --group_reporting "$@"
}

# all_jobs NAME FILE PLUGIN-OPTION...
all_jobs() {
	local name=$1 file=$2

	shift 2
	start_door disk "$file" "$@" || return
	verified "$name: blocks of 1000 bytes" --bs=1000 --io_size=8M
	verified "$name: blocks of 512 bytes to 4 MiB" \
		--bssplit=512/20:4k/30:12800/20:64k/10:1m/10:4m/10
	verified "$name: mixed reads and writes" --rw=randrw --bssplit=512/25:4k/50:20480/25 \
		--io_size=16M
	verified "$name: four jobs side by side at odd places" --numjobs=4 --size=6000K \
		--offset_increment=6145500 --bssplit=500/25:1500/25:4500/25:70000/25
	verified "$name: with flushes" --bs=4000 --size=2M --fsync=16
	ok "$name: the server ends cleanly" stop_server disk
}

truncate -s 64M "$T/raw"
all_jobs raw "$T/raw"
make_luks2 "$T/luks" 80M --sector-size 4096
all_jobs LUKS2 "$T/luks" passphrase=+"$T/pass"

# Through the journal.
ok "a volume with integrity is made" "$NDIO_BUILD/ndio" format --key-file "$T/pass" --pbkdf pbkdf2 \
	--pbkdf-force-iterations 1000 --size 80M --integrity aead "$T/integrity"
start_door disk "$T/integrity" passphrase=+"$T/pass" integrity-cache=2M
verified "integrity: mixed reads and writes, with flushes" --rw=randrw --numjobs=4 --size=6000K \
	--offset_increment=6145500 --bssplit=500/15:4k/40:20480/25:300000/20 --fsync=40
ok "integrity: the server ends cleanly" stop_server disk

done_testing
