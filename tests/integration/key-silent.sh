#!/bin/bash
# ndio key and format on a server that falls silent while the header is written: they end after the
# time that it has to answer, or some seconds after a signal, they say what state that leaves, nobody's lock is left, and the same command
# finishes it.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

# begin NAME WRITES SIGNAL ACTION...: on a volume of its own behind a server that falls silent after
# so many writes and flushes. All of these wait at the same time.
declare -A pids=() signals=()
begin() {
	local name=$1

	make_small
	mv "$T/disk" "$T/$name.disk"
	start_recorder "$name" "$T/$name.disk"
	: >"$T/$name.silent"
	echo "[ \$1 = pread ] || [ \$(ls $T/$name.log.d | wc -l) -lt $2 ] || {
		: >$T/$name.reached
		while [ -e $T/$name.silent ]; do sleep 0.05; done; }" >"$T/$name.hook"
	"$ndio" "${@:4}" "${cheap[@]}" "$(uri "$name")" >"$T/$name.said" 2>&1 &
	pids[$name]=$!
	signals[$name]=$3
}

await_silence() { # NAME
	until [ -e "$T/$1.reached" ] || ! kill -0 "${pids[$1]}" 2>/dev/null; do
		sleep 0.02
	done
}

lock_of() { # NAME
	echo "/run/lock/ndio-$(printf %s "$(uri "$1")" | sha256sum | cut -d ' ' -f 1)"
}

# ends NAME STATUS REGEX
ends() {
	local status

	wait "${pids[$1]}" 2>/dev/null
	status=$?
	is "$1: it ends" "$status" "$2"
	like "$1: it says what state the header is in" "$(cat "$T/$1.said")" "$3"
	is "$1: in one line" "$(wc -l <"$T/$1.said")" 1
	ok "$1: the lock is free" flock -n "$(lock_of "$1")" true
	rm "$T/$1.silent"
}

change=(key change --key-file "$T/pass" --new-key-file "$T/new")
add=(key add --key-file "$T/pass" --new-key-file "$T/new")
begin area 0 TERM "${change[@]}"
begin metadata 2 HUP "${change[@]}"
begin wiping 6 TERM "${change[@]}"
begin adding 3 TERM "${add[@]}"
begin deadline 2 none "${change[@]}" --answer-timeout 2
begin formatting 5 TERM format --type luks1 --yes --key-file "$T/new"
start=$SECONDS
for name in "${!pids[@]}"; do
	await_silence "$name"
	[ "${signals[$name]}" = none ] || kill -"${signals[$name]}" "${pids[$name]}"
done

silent=".*: interrupted while the server didn't answer: "
ends area 143 "writing the key area$silent.*the key slots are as they were"
ends metadata 129 "writing the LUKS metadata$silent.*the old key or the new one: if the old one opens"
ends wiping 143 "wiping the old key area$silent.*it is done, but the old key may still open"
ends adding 143 "writing the LUKS metadata$silent.*the new key may be there or not"
ends deadline 1 "writing the LUKS metadata.*not answered for 2 seconds: .*the old key or the new one"
ends formatting 143 "wiping what was there$silent.*what was there is lost, .*: format it again"
ok "they all end soon" test $((SECONDS - start)) -lt 25

for name in "${!pids[@]}"; do
	rm "$T/$name.hook"
done
ok "area: the old key opens it" opens "$T/area.disk" "$T/pass"
ok "area: the same command finishes it" "$ndio" "${change[@]}" "${cheap[@]}" "$(uri area)"
ok "area: and the new key opens it" opens "$T/area.disk" "$T/new"
ok "metadata: one of the keys opens it" eval "opens '$T/metadata.disk' '$T/pass' ||
	opens '$T/metadata.disk' '$T/new'"
ok "deadline: one of the keys opens it" eval "opens '$T/deadline.disk' '$T/pass' ||
	opens '$T/deadline.disk' '$T/new'"
ok "wiping: the new key opens it" opens "$T/wiping.disk" "$T/new"
ok "adding: the old key opens it" opens "$T/adding.disk" "$T/pass"
ok "formatting: the same command finishes it" "$ndio" format --type luks1 --yes --key-file "$T/new" \
	"${cheap[@]}" "$(uri formatting)"
ok "formatting: and it opens" opens "$T/formatting.disk" "$T/new"
for name in "${!pids[@]}"; do
	stop_server "$name"
	rm -f "$(lock_of "$name")"
done
done_testing
