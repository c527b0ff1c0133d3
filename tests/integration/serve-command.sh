#!/bin/bash
# ndio serve becomes the program ndio-serve that is beside it: with all arguments, in the same process,
# with no signal ignored that wasn't; or it says that there is none.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

mkdir "$T/bin"
cp "$ndio" "$T/bin/ndio"

has_help() {
	local said

	said=$("$ndio" serve --help)
	is "--help: the status" $? 0
	like "--help" "$said" '^Usage: ndio serve .*--key-file FILE'
	is "ndio help serve is the same" "$("$ndio" help serve)" "$said"
	is "-h, too" "$("$ndio" serve -h)" "$said"
	is "and what the server prints by itself" "$("$NDIO_BUILD/ndio-serve" --help)" "$said"
	is "--version" "$("$ndio" serve --version)" "$("$ndio" --version)"
	ok "no disk" usage "$ndio" serve
	ok "an unknown option" usage "$ndio" serve --frobnicate
}

# In place of the server: tells what it was given.
cat >"$T/bin/ndio-serve" <<'EOT'
#!/bin/bash
printf '<%s>' "$$" "$@"
grep '^SigIgn:' /proc/$$/status | tr '\t\n' ' '
exit 77
EOT
chmod 755 "$T/bin/ndio-serve"

# given COMMAND...: what that tells, its own process being PID, and its status.
given() {
	local status

	"$@" >"$T/given" &
	wait $!
	status=$?
	echo "$(sed "s/^<$!>/<PID>/" "$T/given")$status"
}

becomes() {
	local arguments=(--listen 'a b' '' -- -x)

	like "the arguments, the process and the status" "$(given "$T/bin/ndio" serve "${arguments[@]}")" \
		'^<PID><--listen><a b><><--><-x>Sig.*77$'
	is "what ndio itself ignores isn't ignored" "$(given "$T/bin/ndio" serve "${arguments[@]}")" \
		"$(given "$T/bin/ndio-serve" "${arguments[@]}")"
	is "ndio help serve asks it" "$(given "$T/bin/ndio" help serve | sed 's/>Sig.*//')" "<PID><--help"
}

is_not_there() {
	chmod 644 "$T/bin/ndio-serve"
	ok "one that can't be run" fails "^ndio: $T/bin/ndio-serve: Permission denied$" \
		"$T/bin/ndio" serve "$T/disk"
	rm "$T/bin/ndio-serve"
	if [ -e /usr/local/libexec/ndio/ndio-serve ] || [ -e /usr/libexec/ndio/ndio-serve ]; then
		skip "one is installed on this machine" 3
		return
	fi
	ok "none" fails "^ndio: /.*/ndio-serve: the server isn't installed$" "$T/bin/ndio" serve "$T/disk"
	ok "nor for its help" fails "the server isn't installed" "$T/bin/ndio" help serve
	is "nor for completion" "$("$T/bin/ndio" complete serve --sock 2>&1)" \
		"$("$T/bin/ndio" serve 2>&1)"
}

has_help
becomes
is_not_there
done_testing
