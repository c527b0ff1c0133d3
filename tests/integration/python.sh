#!/bin/bash
# The Python module: what blocks, what is asynchronous, all that may go wrong, and its example programs.
. "$(dirname "$0")/../lib/lib.sh"

[ -e "$NDIO_BUILD/python/_ndio.abi3.so" ] || skip_all "no python3-dev here: the module wasn't built"
[[ $NDIO_SANITIZE != *thread* ]] || skip_all "Python itself isn't made for ThreadSanitizer"

# Python leaves much behind at its end; what we leave is counted in the tests. A sanitizer sees what Python
# allocates only if it does so by malloc().
python() {
	LD_PRELOAD=$NDIO_PRELOAD PYTHONMALLOC=${NDIO_SANITIZE:+malloc} ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" \
		LD_LIBRARY_PATH=$NDIO_BUILD PYTHONPATH="$NDIO_BUILD/python:$root/tests/python" \
		/usr/bin/python3 -B -W default -X faulthandler "$@"
}

# parts_of NAME PROGRAM: each of its tests is one of ours.
parts_of() {
	local line count=0 wanted

	python "$root/tests/python/$2.py" >"$T/tap" 2>"$T/said"
	while read -r line; do
		case $line in
		"ok "* | "not ok "*)
			count=$((count + 1))
			[[ $line = ok* ]]
			result $? "$1: ${line#*- }"
			;;
		1..*) wanted=${line#1..} ;;
		esac
	done <"$T/tap"
	is "$1: all have run" "$count" "${wanted:-none}"
	[ ! -s "$T/said" ] || diag "$(tail -n 60 "$T/said")"
}

make_luks2 "$T/luks" 24M
truncate -s 8M "$T/plain"
start_stock luks file "$T/luks" || exit
export PLAIN=$T/plain LUKS=$T/luks KEY=$T/pass GATE=$T/gate GATED SERVED
SERVED=$(uri luks)
parts_of blocking volume

# Its reads wait until the gate is open, and then are of one letter alone.
cat >"$T/pread" <<'SH'
while [ ! -e "$GATE" ]; do sleep 0.02; done
head -c "$3" /dev/zero | tr '\0' g
SH
start_stock gated eval get_size='echo 8M' thread_model='echo parallel' \
	pread="set -- \"\$2\" \"\$3\" \"\$3\"; . '$T/pread'" || exit
GATED=$(uri gated)
parts_of asynchronous asynchronous
touch "$GATE"
ok "no server minds" stop_server gated
ok "nor the other" stop_server luks

# The examples, as a user runs them.
program() {
	python "$root/python/examples/$1.py" "${@:2}"
}
size=$(python -c 'import ndio, sys
with ndio.Volume(sys.argv[1], sys.argv[2], readonly=True) as volume:
	print(volume.size)' "$LUKS" "$(cat "$KEY")")
rm "$T/plain"
truncate -s "$size" "$T/plain"
{ echo "a line of text"; head -c 3000000 /dev/urandom; } | dd of="$T/plain" conv=notrunc status=none
printf 'the end' | dd of="$T/plain" bs=1 seek=$((size - 7)) conv=notrunc status=none
ok "copy.py copies" program copy "$T/plain" "$T/luks" "$T/pass"
is "hexdump.py shows it" "$(program hexdump "$T/luks" $((size - 16)) "$T/pass" 2>&1)" \
	"$(printf '%08x' $((size - 16)))  00 00 00 00 00 00 00 00 00 74 68 65 20 65 6e 64  |.........the end|"
like "backup.py says what it has" "$(program backup "$T/luks" "$T/pass" "$T/backup")" \
	"^$(sha256sum <"$T/plain" | cut -d' ' -f1)  $T/backup\$"
ok "which is all of it" cmp "$T/plain" "$T/backup"
for example in hexdump:"$T/luks 0 $T/plain" copy:"$T/luks $T/nothing $T/pass" backup:"$T/luks $T/plain $T/backup"; do
	# shellcheck disable=SC2086
	said=$(program ${example%%:*} ${example#*:} 2>&1)
	is "${example%%:*}.py fails" $? 1
	like "${example%%:*}.py says why, in one line" "$said" "^[^"$'\n'"]*: $T/[^"$'\n'"]*$"
done
done_testing
