#!/bin/bash
# Volumes opened by their tokens, wherever a key is given: what clevis has bound to Tang servers, and what lies
# in the kernel's keyring. What doesn't answer is told, the next one is tried, and then the passphrase. Nothing
# is run or asked but for who wants that, and nothing that is silent is waited for longer than it may be.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/tang.sh"

has_tang || skip_all "no clevis, Tang server or socat here"

# What the plugin runs has that before itself, too: clevis' shell isn't asked what it leaks.
preloaded=(env LD_PRELOAD="$NDIO_PRELOAD" ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0")

disk=$T/disk

# bind TOKEN-ID SLOT PIN CONFIG [PASSPHRASE-FILE]: as clevis luks bind, but by a passphrase that is known.
bind() {
	clevis encrypt "$3" "$4" -y <"${5:-$T/new}" | jose jwe fmt -i- -o- |
		python3 -c 'import json, sys
print(json.dumps({"type": "clevis", "keyslots": [sys.argv[1]], "jwe": json.load(sys.stdin)}))' "$2" |
		cryptsetup token import --token-id "$1" --json-file - "$disk"
}

new_disk() {
	make_luks2 "$disk" 18M
	cryptsetup luksAddKey --batch-mode "${cheap[@]}" --key-slot 1 --key-file "$T/pass" "$disk" "$T/new"
}

# by WORDS... : ndio info, with nobody at a terminal, says how it went.
by() {
	setsid "$ndio" info "$@" "$disk" </dev/null 2>&1
}

# ---- what a Tang server holds ----

opened_everywhere() {
	new_disk
	start_tang tang
	bind 3 1 tang "{\"url\":\"$tang\"}"
	like "key list says how it is held" "$("$ndio" key list "$disk")" \
		" 3  clevis +1  tang $tang"
	is "info, too, by JSON" "$("$ndio" info --json "$disk" | python3 -c 'import json, sys
print(json.load(sys.stdin)["luks"]["tokens"])')" \
		"[{'token': 3, 'type': 'clevis', 'about': 'tang $tang', 'key_slots': [1]}]"
	like "info" "$(by --token any)" "unlocked: +yes"
	head -c 2M /dev/urandom >"$T/data"
	ok "copy to it" "$ndio" copy --dst-token=any "$T/data" "$disk"
	ok "compare with it, by the number" "$ndio" compare --src-token=3 "$disk" "$T/data"
	ok "the plugin" "${preloaded[@]}" nbdkit --exit-with-parent -U - "$NDIO_PLUGIN" "$disk" token=any \
		--run "nbdcopy \"\$uri\" $T/out"
	ok "the plugin: the same bytes" cmp "$T/out" "$T/data"
	ok "serve" "$NDIO_BUILD/ndio-serve" --socket "$T/run.sock" --token 3 \
		--run "nbdcopy \"\$uri\" $T/out2" "$disk"
	ok "serve: the same bytes" cmp "$T/out2" "$T/data"
	echo "it $disk none token=any" >"$T/table"
	ok "serve: a table" "$NDIO_BUILD/ndio-serve" --socket "$T/run.sock" --exports "$T/table" \
		--run "nbdcopy \"\$uri\" $T/out3"
	ok "serve: a table: the same bytes" cmp "$T/out3" "$T/data"
}

away() {
	end_tang tang
	like "away: told" "$(by --token any)" \
		"$disk: token 3 \(clevis, tang $tang\): Error communicating with server $tang"
	like "away: then a passphrase is wanted" "$(by --token any)" "no terminal to ask for the key at"
	like "away: a key that is given opens it" "$(by --token any --key-file "$T/pass")" \
		"unlocked: +yes"
	ok "away: one that is typed" terminal "Passphrase for $disk: => correct horse battery staple" \
		"$ndio" info --token any "$disk"
	ok "away: the plugin by its key" "${preloaded[@]}" nbdkit -U - "$NDIO_PLUGIN" "$disk" token=any \
		passphrase=+"$T/pass" --run 'nbdinfo --size "$uri"'
	ok "away: the plugin without one" fails "token 3 .* communicating" \
		"${preloaded[@]}" nbdkit -U - "$NDIO_PLUGIN" "$disk" token=any --run true
	ok "away: serve by its key" "$NDIO_BUILD/ndio-serve" --socket "$T/run.sock" --token any \
		--key-file "$T/pass" --run 'nbdinfo --size "$uri"' "$disk"
}

next_one() {
	start_tang other
	bind 5 1 tang "{\"url\":\"$tang\"}"
	like "the next one opens it" "$(by --token any)" "ndio: $disk: token 3 .*unlocked: +yes"
	like "not if another is named" "$(by --token 3)" "no terminal"
	like "nor if there is none of that number" "$(by --token 4)" "the LUKS header has no token 4"
	like "it is of one key slot" "$(by --token 5 --slot 1)" "unlocked: +yes"
	like "and of no other" "$(by --token 5 --slot 0)" "token 5 .*it is of no key slot that may be tried"
}

some_of_several() {
	local both="\"tang\":[{\"url\":\"$tang\"},{\"url\":\"$gone\"}]"

	new_disk
	bind 0 1 sss "{\"t\":1,\"pins\":{$both}}"
	bind 1 1 sss "{\"t\":2,\"pins\":{$both}}"
	end_tang gone
	like "SSS: one of two" "$(by --token 0)" "unlocked: +yes"
	like "SSS: both are needed" "$(by --token 1)" "token 1 \(clevis, sss\): .*no terminal"
}

# Its server answers, but the passphrase is another disk's.
wrong_key() {
	new_disk
	bind 0 1 tang "{\"url\":\"$tang\"}" "$T/wrong"
	like "another disk's" "$(by --token 0)" \
		"token 0 .*: no key slot opens with what it gives"
	mv "$T/other.keys" "$T/old.keys"
	mkdir "$T/other.keys"
	/usr/libexec/tangd-keygen "$T/other.keys"
	like "the server has other keys now" "$(by --token 0)" "token 0 .*communicating with server"
}

# ---- a program that is called clevis ----

# fake TEXT: what is run in its place.
fake() {
	mkdir -p "$T/bin"
	printf '#!/bin/bash\n%s\n' "$1" >"$T/bin/clevis"
	chmod +x "$T/bin/clevis"
}

not_by_itself() {
	new_disk
	bind 0 1 tang "{\"url\":\"$tang\"}"
	fake "touch $T/ran"
	PATH=$T/bin:$PATH by --key-file "$T/pass" >"$T/said"
	like "without --token" "$(cat "$T/said")" "unlocked: +yes"
	ok "nothing is run" not test -e "$T/ran"
}

# gone_at_last PID: within a while.
gone_at_last() {
	local deadline=$((SECONDS + 30))

	while [ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; do
		[ "$SECONDS" -le "$deadline" ] || return
		sleep 0.02
	done
}

silent() {
	local pid deadline=$((SECONDS + 30))

	fake "echo \$\$ >$T/clevis.pid; sleep 1000 & echo \$! >$T/sleep.pid; wait"
	like "silent: it has its time" "$(PATH=$T/bin:$PATH by --token any --answer-timeout 1)" \
		"token 0 .*: no answer within 1 seconds"
	ok "silent: nobody is left" gone_at_last "$(cat "$T/clevis.pid")"
	ok "silent: nor whom it started" gone_at_last "$(cat "$T/sleep.pid")"
	rm "$T/sleep.pid"
	PATH=$T/bin:$PATH setsid "$ndio" info --token any "$disk" </dev/null >/dev/null 2>&1 &
	pid=$!
	until [ -s "$T/sleep.pid" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	kill -TERM $pid
	wait $pid
	is "silent: a signal ends it" $? 143
	ok "silent: and all that waits" gone_at_last "$(cat "$T/sleep.pid")"
	fake "head -c 100000 /dev/zero; sleep 1000"
	like "one that says too much" "$(PATH=$T/bin:$PATH by --token any)" "token 0 .*: says too much"
	fake "yes | head -c 100000 >&2; printf 'no %s \\e[31m thing\\n' '\$(such)' >&2; exit 3"
	like "the last that one says is shown, without controls" \
		"$(PATH=$T/bin:$PATH by --token any)" "token 0 .*\): no \\$\\(such\\) \\?\\[31m thing"
	fake "exit 3"
	like "or that it says nothing" "$(PATH=$T/bin:$PATH by --token any)" "failed, and doesn't say why"
	fake "cat >$T/jwe; printf 'new key'"
	like "all that it gets is a JWE" "$(PATH=$T/bin:$PATH by --token any)" "unlocked: +yes"
	is "with its dots" "$(tr -d A-Za-z0-9_- <"$T/jwe")" "...."
	rm -r "$T/bin"
	mkdir "$T/bin"
	for program in setsid; do ln -s "$(command -v $program)" "$T/bin"; done
	like "none is there" "$(PATH=$T/bin by --token any)" "clevis isn't installed: apt-get install clevis"
}

# A header from the network says what it likes.
hostile() {
	local edit=$root/tests/tools/edit-luks2.py name code

	fake "touch $T/ran"
	while IFS='|' read -r name code; do
		cp "$disk" "$T/hostile"
		python3 "$edit" "$T/hostile" "import base64; t = json['tokens']['0']; jwe = t['jwe']; $code"
		rm -f "$T/ran"
		like "hostile: $name" "$(PATH=$T/bin:$PATH disk=$T/hostile by --token any)" \
			"token 0 .*no terminal"
		ok "hostile: $name: nothing is run" not test -e "$T/ran"
	done <<-'LIST'
		no JWE|del t['jwe']
		a JWE that is none|t['jwe'] = ["x", 7]
		a part that is missing|del jwe['iv']
		parts of other letters|jwe['tag'] = "$(id);\n.."
		a NUL in one|jwe['tag'] = "aa\0bb"
		one that is very long|jwe['iv'] = "a" * 1000; jwe['ciphertext'] = "a" * 3000; jwe['tag'] = 'a' * 1000; jwe['iv2'] = 'b'; jwe['protected'] = jwe['protected'][:-8] + "%%"
		a pin that is a path|jwe['protected'] = base64.urlsafe_b64encode(b'{"clevis":{"pin":"../../bin/id"}}').decode().rstrip("=")
		a pin of many words|jwe['protected'] = base64.urlsafe_b64encode(b'{"clevis":{"pin":"tang -y"}}').decode().rstrip("=")
		a pin that is none|jwe['protected'] = base64.urlsafe_b64encode(b'{"clevis":{"pin":{}}}').decode().rstrip("=")
		no JSON|jwe['protected'] = "AAAA"
		a kind that nobody knows|t['type'] = "ssh"
		a path for a kind|t['type'] = "../../../../tmp/x"
		no key slots|t['keyslots'] = []
	LIST
}

# ---- the kernel's keyring ----

# with_key PASSPHRASE COMMAND...: in a session whose keyring has that as "ndio test".
with_key() {
	# shellcheck disable=SC2016
	keyctl session - bash -c 'printf %s "$1" | keyctl padd user "ndio test" @s >/dev/null && shift &&
		exec "$@"' - "$@" 2>&1
}

keyring() {
	make_luks2 "$disk" 18M
	cryptsetup token add --key-slot 0 --token-id 0 --key-description "ndio test" "$disk"
	like "keyring: key list" "$("$ndio" key list "$disk")" " 0  luks2-keyring +0  ndio test"
	like "keyring: no such key" "$(by --token any)" \
		"token 0 \(luks2-keyring, ndio test\): no such key in the kernel's keyrings"
	with_key x true >/dev/null || {
		skip "no keyring for us: $(with_key x true | tail -n 1)" 2
		return
	}
	like "keyring: opened" \
		"$(with_key 'correct horse battery staple' "$ndio" info --token any "$disk")" \
		"unlocked: +yes"
	like "keyring: another passphrase" "$(with_key wrong setsid "$ndio" info --token any "$disk")" \
		"token 0 .*: no key slot opens with what it gives"
}

none_at_all() {
	make_luks2 "$disk" 18M
	like "no token" "$(by --token any)" "the LUKS header has no token"
	make_luks1 "$disk" 4M
	like "LUKS1" "$(by --token any)" "LUKS1 headers have no tokens"
	ok "no number" usage "$ndio" info --token some "$disk"
	ok "serve: no number" usage "$NDIO_BUILD/ndio-serve" --token 32 "$disk"
	ok "the plugin: no number" fails "token=32: must be from 0 to 31" "${preloaded[@]}" nbdkit "$NDIO_PLUGIN" "$disk" token=32
}

opened_everywhere
away
next_one
start_tang gone
gone=$tang
tang=http://127.0.0.1:$(cat "$T/other.port")
some_of_several
wrong_key
not_by_itself
silent
hostile
keyring
none_at_all
done_testing
