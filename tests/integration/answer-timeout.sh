#!/bin/bash
# A server that is silent, or as good as that, holds nobody for longer than --answer-timeout says:
# not while a disk is opened, not with requests in flight, not at the end; and all say so in the same
# words. One that is slow but goes on isn't cut off.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/tls.sh"

try=$NDIO_BUILD/tests/clients/ndio-try
hostile=$root/tests/tools/hostile.py
words="the server has not answered for 1 second"

# against MODE...: starts such a server, with the volume behind it.
against() {
	start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" "$@" "$T/disk"
}

end_bad() {
	{
		kill -KILL "${server_pids[bad]}"
		wait "${server_pids[bad]}"
		unset "server_pids[bad]"
	} 2>/dev/null
}

# gives_up NAME COMMAND...: with these words, soon, and status 1 (compare, as diff(1), has 2).
gives_up() {
	local said status

	said=$(timeout -k 1 20 "${@:2}" 2>&1 >/dev/null </dev/null)
	status=$?
	[ "$status" = 1 ] || { [ "$1" = compare ] && [ "$status" = 2 ]; } && [[ $said =~ ^ndio:\ [^$'\n']*bad\.sock:\ [^$'\n']*$words($|$'\n') ]]
	echo "$? $1: status $status: $said" >"$T/gave.$1"
}

# all_give_up MODE...: every command does.
all_give_up() {
	local mode=$* uri limit=(--answer-timeout 1) name pids=()

	against "$@" || return
	uri=$(uri bad)
	gives_up info "$ndio" info "${limit[@]}" "$uri" & pids+=($!)
	gives_up unlock "$ndio" info "${limit[@]}" --key-file "$T/pass" "$uri" & pids+=($!)
	gives_up list "$ndio" key list "${limit[@]}" "$uri" & pids+=($!)
	gives_up add "$ndio" key add "${limit[@]}" --key-file "$T/pass" --new-key-file "$T/new" \
		"${cheap[@]}" "$uri" & pids+=($!)
	gives_up copy "$ndio" copy --reconnect 0 "${limit[@]}" "$uri" null: & pids+=($!)
	gives_up compare "$ndio" compare --reconnect 0 "${limit[@]}" "$uri" "$T/disk" & pids+=($!)
	gives_up decrypt "$ndio" copy --reconnect 0 "${limit[@]}" --src-key-file "$T/pass" "$uri" null: & pids+=($!)
	gives_up format "$ndio" format --yes "${limit[@]}" --key-file "$T/pass" "${cheap[@]}" "$uri" &
	pids+=($!)
	wait "${pids[@]}"
	for name in info unlock list add copy compare decrypt format; do
		is "$mode: $name" "$(head -n 1 "$T/gave.$name" | cut -d' ' -f1)" 0 || diag "$(cat "$T/gave.$name")"
	done
	ok "$mode: a gateway doesn't start" refused "bad.sock: .*$words" uri="$uri" answer=1 \
		passphrase=+"$T/pass"
	end_bad
}

make_luks2 "$T/disk" 20M
all_give_up mute
all_give_up drip
all_give_up options
all_give_up mute-replies
all_give_up drip-replies
all_give_up chunks
all_give_up slow-chunks

# ---- requests in flight ----

# All that is in flight, over every connection, and what comes later: no request waits twice.
against mute-after 40
start_door gate uri="$(uri bad)" answer=1 reconnect=0
ok "a gateway's clients get an error, all of them" py_within 20 gate '
import time
bufs = [nbd.Buffer(4096) for _ in range(120)]
cookies = [h.aio_pread(buf, i * 4096) for i, buf in enumerate(bufs)]
start = time.monotonic()
good, errors = outcomes(h, cookies)
assert errors > 60 and good > 0, (good, errors)
assert time.monotonic() - start < 10'
ok "and say why" said gate "read of 4096 bytes at [0-9]+: $words"
ok "and it ends" stop_server gate
end_bad

# Stopped as a process, in the middle of a copy, in either direction.
stopped() { # NAME SRC DST [OPTION...]
	local name=$1 pid

	"$ndio" copy --reconnect 0 --answer-timeout 1 --progress=json "${@:2}" 2>"$T/copied" &
	pid=$!
	until grep -q '"done": *[1-9]' "$T/copied" || ! kill -0 $pid 2>/dev/null; do
		sleep 0.02
	done
	freeze "${server_pids[inner]}"
	timeout 30 tail --pid=$pid -f /dev/null
	wait $pid
	is "$name: status" $? 1
	kill -CONT "${server_pids[inner]}"
	like "$name: it says so" "$(grep -v '^{' "$T/copied")" "inner.sock: .*$words"
}
start_stock inner --filter=delay random 64M rdelay=200ms
stopped "stopped while it is read" "$(uri inner)" null:
end_server inner
random "$T/large" 64M
start_stock inner --filter=delay memory 64M wdelay=200ms
stopped "stopped while it is written" "$T/large" "$(uri inner)"
end_server inner
rm "$T/large"

# ---- what isn't silent ----

random "$T/noise" 2M
start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" slow "$T/noise"
ok "large answers that come slowly are waited for" timeout 60 \
	"$ndio" copy --answer-timeout 1 "$(uri bad)" "$T/copied-noise"
ok "and are right" cmp "$T/noise" "$T/copied-noise"
end_bad

# The client was stopped, and not the server; which has time to answer on a busy machine, too.
start_stock inner --filter=delay random 64M rdelay=100ms
"$ndio" copy --answer-timeout 4 "$(uri inner)" "$T/copy" 2>"$T/copied" &
pid=$!
for _ in 1 2; do
	sleep 0.3
	freeze $pid
	sleep 5
	kill -CONT $pid
done
wait $pid
is "a client that was stopped goes on" $? 0 || diag "$(cat "$T/copied")"
end_server inner

# ---- how to ask for it ----

ok "0 seconds are refused" usage "$ndio" info --answer-timeout 0 "$T/disk"
ok "and what is no number" usage "$ndio" copy --answer-timeout=soon "$T/disk" null:
[ "$DOOR" = serve ] ||
	ok "by the plugin too" refused "answer=0: must be from 1 to" uri="$(uri inner)" answer=0
done_testing
