#!/bin/bash
# The benchmark's harness: small runs of it give figures and a report, and a server that gives
# wrong data is found out instead of measured.
. "$(dirname "$0")/../lib/lib.sh"

if [ -n "$NDIO_SANITIZE" ]; then
	skip_all "a sanitizer's build isn't measured"
fi
case $(stat -f -c %T "$NDIO_BUILD") in
tmpfs | ramfs) skip_all "$NDIO_BUILD is in memory" ;;
esac
has_io_uring || skip_all "io_uring, by which fio writes, is refused here"
disks=$(mktemp -d "$NDIO_BUILD/bench-test.XXXXXX")
trap 'rm -rf "$disks"; clean_up' EXIT

bench() { # OUT ARG...
	python3 -B "$root/tests/bench/bench.py" --rounds 1 --seconds 0.2 --size 16 --dir "$disks" \
		--out "$T/$1" "${@:2}"
}

# holds OUT CONDITION: of its results, r.
holds() {
	python3 -c '
import json, sys
r = json.load(open(sys.argv[1]))
assert eval(f"({sys.argv[2]})"), json.dumps(r, indent=1)' "$T/$1/results.json" "$2"
}

ok "the statistics" python3 -B - "$root/tests/bench" <<-'PYTHON'
	import collections, sys
	sys.path.insert(0, sys.argv[1])
	from samples import Samples, in_rounds, interval
	assert interval(range(9, 0, -1)) == (2, 8, 1 - 20 / 512)
	assert interval([3, 1, 2]) == (1, 3, 0.75)
	assert interval([7]) == (7, 7, 0)
	places = collections.Counter((n % 3, case) for n, (_, case) in
	                             enumerate(in_rounds(6, ["a", "b", "c"])))
	assert set(places.values()) == {2} and len(places) == 9, places
	samples = Samples()
	for number, value in enumerate((5, 1, 3)):
	    samples.add("part", "job", "who", 1, number, {"ms": value})
	assert samples.summary()[0]["metrics"]["ms"]["median"] == 3
PYTHON

ok "how busy the cores were, and a limit beside a row" python3 -B - "$root/tests/bench" <<-'PYTHON'
	import os, sys
	sys.path.insert(0, sys.argv[1])
	from busy import Busy
	from goals import judge
	from samples import Samples
	busy = Busy()
	# Idle at the start and the end, and for a fifth of the time between.
	for tenth in range(21):
	    idle = min(max(tenth - 11, 0), 8) * 0.02 + min(tenth, 11) * 0.1 + max(tenth - 19, 0) * 0.1
	    busy.seen.append((100 + tenth / 10, idle * os.cpu_count()))
	assert abs(busy.share(1) - 0.8) < 1e-6, busy.share(1)
	assert busy.share(0.01) is None
	samples = Samples()
	for who, iops in (("disk", 100), ("bare", 74), ("ndio", 66)):
	    samples.add("servers", "rand-read-32", who, 1, 0, {"IOPS": iops, "busy": iops / 100})
	row, = [r for r in judge(samples) if r["row"].startswith("unencrypted over the raw disk, random")]
	assert (row["median"], row["pass"], row["busy"]["median"]) == (0.66, False, 0.66), row
	assert (row["limit"]["who"], row["limit"]["median"]) == ("bare", 0.74), row
PYTHON

# Without root, or where nothing is traced, there is no telling.
if [ -w /sys/kernel/tracing/instances ]; then
	ok "idle cores are told of" python3 -B "$root/tests/bench/cores.py" sleep 0.3
	is "in shares of the time" "$(awk '/%  a(ll cores| core is)/ { all += $1 }
		END { print (all > 99 && all < 101) }' "$T/ok.out")" 1
else
	skip "no tracefs here" 2
fi

ok "what has goals is measured" bench quick --quick --jobs seq-read,first-byte \
	--who ndio,ndio-luks2
ok "without a problem" holds quick 'r["problems"] == []'
ok "each sample has a rate, CPU time, memory and latency" holds quick 'all(
	s[m] > 0 for s in r["samples"] if s["job"] == "seq-read"
	for m in ("MiB/s", "cpu_s/GiB", "peak_MiB", "p50_us", "p99_us", "p99.9_us"))
	and len(r["samples"]) == 5'
ok "the rows that were measured are judged, and no others" holds quick '{
	g["row"]: g["pass"] is not None for g in r["goals"]}.items() >= {
	"LUKS2, 4096 over own unencrypted, sequential read": True,
	"LUKS2, 4096 over own unencrypted, sequential write": False,
	"time to first byte: a volume of 1 TiB over one of 1 GiB": True}.items()'
ok "the report has them" grep -q "$T/quick/report.md" \
	-e '^| LUKS2, 4096 over own unencrypted, sequential read | at least 0.97 | [0-9]'
if command -v gnuplot >/dev/null; then
	ok "and a chart" python3 -c 'import sys, xml.dom.minidom as x; x.parse(sys.argv[1])' \
		"$T/quick/throughput.svg"
else
	skip "no gnuplot here"
fi

ok "the raw disk is measured at its best" bench raw --jobs seq-read,rand-read-32 --who disk,disk-plain,ndio servers
ok "in one of several shapes" holds raw 'r["problems"] == [] and r["raw_disk"]["seq-read"] in {
	f"bs={size} iodepth={depth}" for size in ("128k", "256k", "512k", "1M") for depth in (8, 32)}
	and r["raw_disk"]["rand-read-32"] == "bs=4k iodepth=32"
	and {s["who"] for s in r["samples"]} == {"disk", "disk-plain", "ndio"}'
ok "and how is told" grep -q '^\*\*The raw disk\*\* .* `bs=' "$T/raw/report.md"
if command -v gnuplot >/dev/null; then
	ok "it is the limit in the chart" grep -q 'raw disk [0-9]' "$T/raw/throughput.svg"
	is "and is none where it wasn't measured so" "$(grep -c 'raw disk' "$T/quick/throughput.svg")" 0
else
	skip "no gnuplot here" 2
fi

ok "clients are measured" bench clients --jobs copy-in-luks --who ndio-copy-luks1 clients
ok "with a rate" holds clients 'r["samples"][0]["MiB/s"] > 0 and r["problems"] == []'

ok "one server before another is measured" bench chain --quick --jobs rand-read-1 \
	--who serve-gateway,qemu-gateway
ok "with the time and memory of both" holds chain 'r["problems"] == [] and len(r["samples"]) == 2
	and all(s["IOPS"] > 0 and s["cpu_s/GiB"] > 0 and s["peak_MiB"] > 0 for s in r["samples"])
	and sum(g["pass"] is not None for g in r["goals"]) == 1'

ok "the bare plugin is measured" bench bare --jobs rand-write-32 --who bare servers
ok "and what it writes is there" holds bare 'r["samples"] and r["problems"] == []'

# A server that remembers what it is told, and never writes it to the disk.
mkdir "$T/bin"
cat >"$T/bin/qemu-nbd" <<-'SHELL'
	#!/bin/bash
	for word; do
		case $word in
		--pid-file=*) pid=${word#*=} ;;
		--socket=*) socket=${word#*=} ;;
		esac
	done
	exec nbdkit --foreground --exit-with-parent --pidfile "$pid" --unix "$socket" memory 1G
SHELL
chmod +x "$T/bin/qemu-nbd"
PATH=$T/bin:$PATH ok "a server that forgets makes it fail" \
	not bench liar --quick --jobs seq-write --who qemu-luks1
ok "says who" holds liar '"qemu-luks1 (1): fio failed" in r["problems"][0]'
ok "and isn't measured" holds liar 'r["samples"] == []'

(bench stopped --quick --jobs seq-read,rand-read-32 --who ndio >/dev/null 2>"$T/says"
echo $? >"$T/status") &
deadline=$((SECONDS + 60))
until grep -q rand-read-32 "$T/says" || [ $SECONDS -gt $deadline ]; do
	sleep 0.01
done
pgrep -f "bench[.]py.*$T/stopped" >"$T/pid"
ok "it can be stopped" kill "$(head -1 "$T/pid")"
wait $!
is "with the signal's status" "$(cat "$T/status")" 143
ok "and what was measured is kept" holds stopped \
	'r["samples"] and r["problems"] == ["stopped before its end"]'

if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ]; then
	ok "no disks in memory" not bench memory --dir /dev/shm
else
	skip "/dev/shm isn't in memory"
fi
is "the disks are gone" "$(ls "$disks")" ""
done_testing
