#!/bin/bash
# ndio bench: every line is there, what it says can be, and nothing is written that wasn't asked for.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

make_small
cp "$T/disk" "$T/vol"
head -c 2M /dev/urandom >"$T/disk"

# measured EXPRESSION OPTION...: of the array, as lines.
measured() {
	"$ndio" bench --seconds 0.1 --json "${@:2}" 2>/dev/null | python3 -c 'import json, sys
lines = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}
before=$(cksum <"$T/disk")
reads='[("sequential read", 1048576, 1), ("sequential read", 262144, 16), ("random read", 4096, 1), ("random read", 4096, 8), ("random read", 4096, 64)]'
is "reads alone, and each does something" "$(measured '[(l["what"], l["block"], l["depth"]) for l in lines
	if l["what"] != "cipher" and l["bytes_per_second"] >= l["block"] / 4
	and l["worst_ns"] >= l["mean_ns"] > 0] == '"$reads" "$T/disk")" True
is "nothing was written" "$(cksum <"$T/disk")" "$before"
start_stock slow --filter=delay memory 2M rdelay=20ms
is "a server that takes 20 ms for each does at most 50 a second, and by 8 no more than 400" \
	"$(measured '[l["requests_per_second"] <= 50 * l["depth"] and l["mean_ns"] >= 20000000 for l in lines
	if l["what"] == "random read" and l["depth"] <= 8]' "$(uri slow)")" "[True, True]"
stop_server slow
is "with a key it is the volume's cipher" "$(measured 'sorted({(l["cipher"], l["key_bits"]) for l in lines
	if l["what"] == "cipher"})' --key-file "$T/pass" --write-and-destroy "$T/vol")" "[('aes-xts-plain64', 512)]"
ok "which it destroys, but not its header" opens "$T/vol" "$T/pass"
start_stock memory memory 2M
like "a table" "$("$ndio" bench --seconds 0.1 --write-and-destroy "$(uri memory)")" \
	"sequential write +262144 +16 +[0-9.]+ .*random write +4096 +64 .*aes-xts-plain64, 512 bits, in memory, 1 thread: [0-9.]+ MiB/s"
ok "and writes, where it is told to" not sh -c "nbdcopy '$(uri memory)' - | cmp -s -n 2097152 - /dev/zero"
stop_server memory
start_stock ro --readonly memory 2M
ok "a read-only server can't be written" fails "it is read-only" "$ndio" bench --write-and-destroy "$(uri ro)"
stop_server ro
start_stock bad --filter=error memory 2M error-pread=EIO error-pread-rate=100%
ok "what can't be read" fails "bad.sock: read at [0-9]*: " sh -c "'$ndio' bench '$(uri bad)' >/dev/null"
stop_server bad
ok "too small" fails "small: it has 4096 bytes, too few" sh -c "truncate -s 4K '$T/small'; '$ndio' bench '$T/small'"
ok "a wrong passphrase" fails "vol: .*key" "$ndio" bench --key-file "$T/wrong" "$T/vol"
ok "no such file" fails "none: No such" "$ndio" bench "$T/none"
"$ndio" bench --seconds 600 "$T/disk" >"$T/out" 2>&1 &
pid=$!
until [ -s "$T/out" ]; do sleep 0.02; done
kill -TERM $pid
wait $pid
is "a signal ends it" $? 143
for wrong in "" "--seconds 0 $T/disk" "--connections 65 $T/disk" "--header $T/vol $T/disk"; do
	# shellcheck disable=SC2086
	ok "bench $wrong" usage "$ndio" bench $wrong
done
done_testing
