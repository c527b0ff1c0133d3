#!/bin/bash
# ndio psk: files of keys that servers and clients take, that nobody else can read, and that
# nothing in the way can lead elsewhere.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

keys=$T/keys.psk

# The export behind a TLS server that knows $keys, for this user.
psk_uri() { # USER
	echo "nbds+unix://$1@/?socket=$T/tls.sock&tls-psk-file=$keys"
}

lines() {
	wc -l <"$1" | tr -d ' '
}

makes_keys() {
	ok "a new file" "$ndio" psk "$keys" alice
	is "its mode" "$(stat -c %a "$keys")" 600
	like "its line" "$(cat "$keys")" '^alice:[0-9a-f]{64}$'
	ok "a second user" "$ndio" psk "$keys" 'bob at home'
	is "the first keeps the key" "$(lines "$keys")" 2
	is "two keys" "$(cut -d: -f2 "$keys" | sort -u | wc -l)" 2
	cp "$keys" "$T/before"
	ok "a user who has one" fails "keys.psk: it has a key of \"alice\" already" "$ndio" psk "$keys" alice
	ok "the file is as it was" cmp "$keys" "$T/before"
	(umask 0 && "$ndio" psk "$T/open" alice)
	is "a mode without a umask" "$(stat -c %a "$T/open")" 600
	printf 'carol:%064d' 7 >"$T/ragged"
	chmod 600 "$T/ragged"
	ok "a file without a last newline" "$ndio" psk "$T/ragged" dave
	is "its lines" "$(cut -d: -f1 "$T/ragged" | tr '\n' ' ')" "carol dave "
	for i in 1 2 3 4 5 6 7 8; do
		"$ndio" psk "$T/many" user$i &
	done
	wait $(jobs -p)
	is "eight at a time" "$(grep -cE '^user[1-8]:[0-9a-f]{64}$' "$T/many")" 8
}

opens_servers() {
	start_stock tls --tls=require --tls-psk="$keys" memory 1M
	ok "nbdkit takes the first key" shown "$(psk_uri alice)"
	ok "and the second" shown "$(psk_uri bob%20at%20home)"
	ok "nbdinfo as well" nbdinfo "$(psk_uri alice)"
	stop_server tls
}

leads_nowhere() {
	local file=$T/elsewhere

	: >"$file"
	chmod 600 "$file"
	ln -s "$file" "$T/link"
	ln -s "$T/nothing" "$T/dangling"
	mkfifo "$T/fifo"
	ok "a symbolic link" fails "link: a symbolic link isn't followed" "$ndio" psk "$T/link" alice
	ok "one to nothing" fails "dangling: a symbolic link" "$ndio" psk "$T/dangling" alice
	is "nothing was written" "$(ls "$T/nothing" 2>&1 >/dev/null | wc -l) $(stat -c %s "$file")" "1 0"
	ok "a FIFO" fails "fifo: not a file" "$ndio" psk "$T/fifo" alice
	ok "a folder" fails "$T: Is a directory" "$ndio" psk "$T" alice
	ok "a folder that isn't there" fails "No such file" "$ndio" psk "$T/no/keys" alice
	chmod 640 "$file"
	ok "a file that others may read" fails "others may read.*chmod 600" "$ndio" psk "$file" alice
	if [ "$(id -u)" = 0 ]; then
		chmod 600 "$file"
		chown 65534 "$file"
		ok "a file of somebody else's" fails "belongs to another" "$ndio" psk "$file" alice
	else
		skip "not root"
	fi
	is "still empty" "$(stat -c %s "$file")" 0
	cp "$keys" "$T/bad"
	echo 'mallory' >>"$T/bad"
	ok "a line without sense" fails "bad: line 3: not USER:KEY" "$ndio" psk "$T/bad" alice
	ok "a full disk" fails "No space|File too large" bash -c \
		'trap "" XFSZ; ulimit -f 0; exec "$@"' - "$ndio" psk "$T/full" alice
	is "and nothing of it" "$(stat -c %s "$T/full")" 0
}

wrong() {
	local user

	for user in '' 'a:b' $'a\nb' '#a' "$(printf '%0256d' 0)"; do
		ok "no user's name: ${user:0:4}" usage "$ndio" psk "$T/none" "$user"
	done
	ok "no user" usage "$ndio" psk "$T/none"
	ok "two users" usage "$ndio" psk "$T/none" a b
	ok "no file was made" not test -e "$T/none"
}

makes_keys
opens_servers
leads_nowhere
wrong
done_testing
