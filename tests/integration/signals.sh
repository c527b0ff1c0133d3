#!/bin/bash
# SIGINT, SIGTERM and SIGHUP: every command cleans up and then dies of the signal, so that a shell's
# loop ends with it, wherever it is: at work, at a prompt, at a server that says nothing.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

# The condition of interrupt.py that it catches SIGHUP: it has begun, and cleans up.
catches='[ $((0x$(sed -n "s/^SigCgt:.*\(.\)$/\1/p" /proc/$pid/status) & 1)) = 1 ]'
# That the process it waits for does, in a shell.
child_catches="pid=\$(pgrep -P \$pid ndio) && $catches"

interrupt() {
	python3 "$root/tests/tools/interrupt.py" "$@"
}

# typed LINES COMMAND...: on a terminal, by whose end it is told.
typed() {
	local lines=$1

	shift
	printf '%s\n' "$lines" >"$T/script"
	python3 -c '
import signal, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL).returncode
print("ended by " + signal.Signals(-code).name if code < 0 else "status %d" % code)
' python3 "$root/tests/tools/terminal.py" "$T/script" "$@"
}

# slow SIZE: a new server for each, since nbdkit 1.32 may abort when its client goes away.
slow() {
	[ -z "${server_pids[slow]:-}" ] || end_server slow 2>/dev/null
	start_stock slow --filter=delay pattern "$1" rdelay=300ms 2>/dev/null
}

copies() {
	local signal

	for signal in SIGINT SIGTERM SIGHUP; do
		rm -f "$T/copied"
		slow 64M
		like "copy: $signal" "$(interrupt $signal "$catches" "$ndio" copy "$(uri slow)" "$T/copied")" \
			"stopped by signal.*stopped at [0-9]+ bytes.*ended by $signal\$"
		ok "copy: $signal: nothing looks whole" \
			[ "$(stat -c %s "$T/copied" 2>/dev/null || echo 0)" -lt $((64 << 20)) ]
	done
	slow 64M
	is "a loop ends by Ctrl-C" "$(interrupt --group SIGINT "$child_catches" bash -c '
		for i in 1 2 3; do "$@" 2>/dev/null; echo went on; done
	' - "$ndio" copy "$(uri slow)" null:)" "ended by SIGINT"
	slow 64M
	is "one that is ignored stays ignored" "$(interrupt SIGHUP "$catches" bash -c '
		trap "" INT; exec "$@" 2>/dev/null' - "$ndio" copy "$(uri slow)" null:)" "ended by SIGHUP"
	slow 1M
	catches_int='[ $((0x$(sed -n "s/^SigCgt:.*\(.\)$/\1/p" /proc/$pid/status) & 2)) = 2 ]'
	is "and harms nothing" "$(interrupt SIGHUP "$catches_int" bash -c '
		trap "" HUP; exec "$@"' - "$ndio" copy "$(uri slow)" null:)" "status 0"
	end_server slow
}

# end_server NAME: at once.
end_server() {
	{
		kill -KILL "${server_pids[$1]}"
		wait "${server_pids[$1]}"
		unset "server_pids[$1]"
	} 2>/dev/null
}

# made NAME FILE COMMAND...: interrupted when the file has just appeared, before there is a volume in
# it. It is one in the end, or isn't there.
made() {
	local name=$1 file=$2

	shift 2
	rm -f "$T/data" "$T/header"
	is "$name: ends by it" "$(interrupt SIGINT "[ -e $file ] && pgrep -P \$pid ndio" strace -f -o /dev/null \
		-P "$file" -e trace=ftruncate -e inject=ftruncate:delay_exit=1000000 "$@")" "ended by SIGINT"
	ok "$name: nothing half done stays" eval "[ ! -e $T/data ] || opens $file $T/pass"
}

formats() {
	if [ -n "$NDIO_SANITIZE" ] || ! strace -o /dev/null true 2>/dev/null; then
		skip "no strace here, or under a sanitizer" 4
		return
	fi
	made "format" "$T/data" "$ndio" format "${cheap[@]}" --key-file "$T/pass" --size 20M "$T/data"
	made "format of two files" "$T/header" "$ndio" format "${cheap[@]}" --key-file "$T/pass" \
		--size 20M --header "$T/header" "$T/data"
}

# As what waits for a key's derivation, for a lock, for a server.
others() {
	local busy='awk "{ exit !(\$14 > 20) }" /proc/$pid/stat'
	local waits='grep -q locked /proc/$pid/wchan || awk "{ exit !(\$3 == \"S\") }" /proc/$pid/stat'

	make_small
	cp "$T/disk" "$T/before"
	is "key: while the key is derived" "$(interrupt SIGINT "$busy" "$ndio" key add --key-file "$T/pass" \
		--new-key-file "$T/new" --pbkdf pbkdf2 --pbkdf-force-iterations 100000000 "$T/disk")" \
		"ended by SIGINT"
	ok "key: nothing has changed" cmp "$T/disk" "$T/before"

	: >"$T/keys"
	chmod 600 "$T/keys"
	exec 8<>"$T/keys"
	flock 8
	is "psk: while another has the file" "$(interrupt SIGTERM "$waits" "$ndio" psk "$T/keys" bob)" \
		"ended by SIGTERM"
	is "psk: nothing has changed" "$(stat -c %s "$T/keys")" 0
	exec 8>&-

	start_server silent python3 -c '
import os, socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
with open(sys.argv[2], "w") as pid:
    pid.write(str(os.getpid()))
time.sleep(100)
' "$T/silent.sock" "$T/silent.pid"
	is "info: a server that says nothing" "$(interrupt SIGINT "$waits" "$ndio" info "$(uri silent)")" \
		"ended by SIGINT"
	is "copy: a server that says nothing" \
		"$(interrupt SIGHUP "$waits" "$ndio" copy "$(uri silent)" "$T/never")" "ended by SIGHUP"
	ok "copy: it makes no file" [ ! -e "$T/never" ]
	end_server silent
}

prompts() {
	local signal disk=$T/disk

	for signal in ^C ^SIGTERM ^SIGHUP; do
		is "copy, source: $signal at the prompt" "$(typed "noecho Passphrase for $disk: => $signal" \
			"$ndio" copy --src-unlock "$disk" null:)" "ended by SIG$(sed 's/C$/INT/; s/SIG//' <<<"${signal#^}")"
	done
	is "copy, destination: Ctrl-C" "$(typed "noecho Passphrase for $disk: => ^C" \
		"$ndio" copy --dst-unlock "$T/pass" "$disk")" "ended by SIGINT"
	is "info: Ctrl-C" "$(typed "noecho Passphrase for $disk: => ^C" "$ndio" info --unlock "$disk")" \
		"ended by SIGINT"
	is "key: Ctrl-C at the new passphrase" "$(typed "noecho Passphrase for $disk: => $(cat "$T/pass")
noecho New passphrase for $disk: => ^C" "$ndio" key add "$disk")" "ended by SIGINT"
	is "format: Ctrl-C at the second prompt" "$(typed "noecho New passphrase for $T/made: => secret
noecho The same again: => ^C" "$ndio" format --size 20M "$T/made")" "ended by SIGINT"
	ok "format: it makes no file" [ ! -e "$T/made" ]
	is "format: Ctrl-C at its question" "$(typed "Type YES => ^C" "$ndio" format --key-file "$T/pass" "$disk")" \
		"ended by SIGINT"
	ok "nothing has changed" cmp "$disk" "$T/before"
}

copies
formats
others
prompts
done_testing
