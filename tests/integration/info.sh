#!/bin/bash
# ndio info: what volumes and servers are, for people and as JSON; bad locators and hostile
# headers.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

# json EXPRESSION LOCATOR OPTION...: of what ndio info says, as i.
json() {
	"$ndio" info --json "${@:2}" | python3 -c 'import json, sys
i = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

# shows FIELD LOCATOR OPTION...: the value in what people see.
shows() {
	"$ndio" info "${@:2}" | sed -n "s/^    $1: *//p"
}

# rewrite FILE OLD NEW: changes the JSON of both copies of a LUKS2 header, and its checksums.
rewrite() {
	python3 - "$@" <<'PYTHON'
import hashlib, sys

name, old, new = sys.argv[1:]
with open(name, "r+b") as f:
    for start in 0, 16384:
        f.seek(start)
        header = bytearray(f.read(16384))
        text = header[4096:].split(b"\0")[0].replace(old.encode(), new.encode())
        header[4096:] = text.ljust(len(header) - 4096, b"\0")
        header[448:512] = bytes(64)
        header[448:480] = hashlib.sha256(header).digest()
        f.seek(start)
        f.write(header)
PYTHON
}

files() {
	local uuid

	truncate -s 3000001 "$T/raw"
	is "raw" "$(shows kind "$T/raw")" raw
	is "raw: size" "$(shows size "$T/raw")" "3000001 bytes (2.9 MiB)"
	ok "raw: the status and words" shown "$T/raw"
	ok "raw: the status isn't 0" not "$ndio" info "$T/raw"
	ok "raw: nor for JSON" fails "$T/raw: not a LUKS volume" "$ndio" info --json "$T/raw"
	is "raw: JSON" "$(json '(i["kind"], i["size"], "luks" in i, "server" in i)' "$T/raw")" \
		"('raw', 3000001, False, False)"
	: >"$T/empty"
	is "empty" "$(shows size "$T/empty")" "0 bytes"
	make_luks2 "$T/two" 20M --label 'my label' --sector-size 4096
	uuid=$(cryptsetup luksUUID "$T/two")
	is "LUKS2" "$(shows kind "$T/two")" LUKS2
	is "LUKS2: UUID" "$(shows UUID "$T/two")" "$uuid"
	is "LUKS2: label" "$(shows label "$T/two")" "my label"
	is "LUKS2: payload" "$(shows 'payload size' "$T/two")" "4194304 bytes (4 MiB)"
	is "LUKS2: JSON" "$(json '[i["luks"][n] for n in ("uuid", "label", "cipher", "key_bits",
		"sector_size", "data_offset", "payload_size", "unlocked")]' "$T/two")" \
		"['$uuid', 'my label', 'aes-xts-plain64', 512, 4096, 16777216, 4194304, False]"
	ok "LUKS2: the status" "$ndio" info "$T/two"
	ok "LUKS2: without a key for it either" "$ndio" info --json "$T/two"
	is "LUKS2: it has no fast zero, no extents, no trim" "$(json '[a for a in ("flush",
		"fast-zero", "extents", "trim") if a in i["can"]]' "$T/two")" "['flush']"
	is "LUKS2: but for who asks for it" "$(json 'i["can_if_asked"]' "$T/two")" "['trim']"
	like "LUKS2: for people, too" "$(shows can "$T/two")" \
		'^flush fua cache, and trim if asked to \(--discard, discard=on\)$'
	cp "$T/two" "$T/allows"
	rewrite "$T/allows" '"config":{' '"config":{"flags":["allow-discards"],'
	is "LUKS2: and where the header allows it" "$(json '("trim" in i["can"], i["can_if_asked"])' \
		"$T/allows")" "(True, [])"
	is "raw: it has" "$(json '[a for a in ("flush", "extents", "trim") if a in i["can"]]' \
		"$T/raw")" "['flush', 'extents', 'trim']"
	is "LUKS2: key slots" "$(json 'i["luks"]["key_slots"]' "$T/two")" \
		"[{'slot': 0, 'priority': 'normal', 'pbkdf': 'pbkdf2', 'hash': 'sha256', 'iterations': 1000}]"
	cryptsetup luksAddKey --batch-mode --pbkdf argon2id --pbkdf-force-iterations 4 \
		--pbkdf-memory 1234 --pbkdf-parallel 1 --key-file "$T/pass" "$T/two" "$T/pass"
	is "memory to unlock" "$(shows 'memory to unlock' "$T/two")" "1234 KiB"
	is "memory to unlock: JSON" "$(json '(i["luks"]["memory_to_unlock_kib"],
		i["luks"]["key_slots"][1]["memory_kib"])' "$T/two")" "(1234, 1234)"
	like "key slots, for people" "$("$ndio" info "$T/two")" "1  normal    argon2id           4        1234        1"
	is "key list is the same table" "$("$ndio" key list "$T/two")" \
		"$("$ndio" info "$T/two" | sed -n 's/^        //p')"
	make_luks1 "$T/one" 3M
	is "LUKS1" "$(json '(i["kind"], i["luks"]["key_bits"], i["luks"]["sector_size"],
		i["luks"]["data_offset"])' "$T/one")" "('LUKS1', 512, 512, 2097152)"
	make_luks2 "$T/data" 2M --header "$T/header"
	is "detached" "$(json '(i["size"], i["luks"]["payload_size"])' "$T/data" --header "$T/header")" \
		"(2097152, 2097152)"
	chmod 400 "$T/one"
	[ "$(id -u)" = 0 ] || is "read-only" "$(shows read-only "$T/one")" yes
	chmod 600 "$T/one"
}

unlocked() {
	is "with the key" "$(shows unlocked "$T/two" --key-file "$T/pass")" yes
	is "with the key, from a descriptor" "$(json 'i["luks"]["unlocked"]' "$T/two" --key-fd 7 \
		7<"$T/pass")" True
	is "with the key and a detached header" "$(shows unlocked "$T/data" --header "$T/header" \
		--key-file "$T/pass")" yes
	ok "a wrong key" fails "$T/two: no key slot opens" "$ndio" info --key-file /etc/hostname "$T/two"
	ok "a key for what isn't encrypted" fails "$T/raw: not a LUKS" "$ndio" info \
		--key-file "$T/pass" "$T/raw"
	like "the passphrase at a terminal" "$(terminal \
		"noecho Passphrase for $T/two: => $(cat "$T/pass")" "$ndio" info --unlock "$T/two")" \
		"unlocked: *yes"
	ok "no terminal" fails "no terminal" setsid "$ndio" info --unlock "$T/two"
}

servers() {
	start_nbdkit disk --filter=blocksize-policy file "$T/two" blocksize-minimum=512 \
		blocksize-preferred=65536 blocksize-maximum=1M
	is "nbdkit: a LUKS volume" "$(json '(i["kind"], i["luks"]["label"], i["read_only"])' \
		"$(uri disk)")" "('LUKS2', 'my label', False)"
	is "nbdkit: block sizes" "$(json '[i["server"][n] for n in ("uri", "tls", "block_minimum",
		"block_preferred", "block_maximum")]' "$(uri disk)")" \
		"['$(uri disk)', False, 512, 65536, 1048576]"
	is "nbdkit: what it can" "$(json '"flush" in i["can"] and "multi-conn" in i["can"]' \
		"$(uri disk)")" True
	is "nbdkit: for people" "$(shows server "$(uri disk)")" "NBD (newstyle-fixed), without TLS, structured replies"
	is "nbdkit: with the key" "$(shows unlocked "$(uri disk)" --key-file "$T/pass")" yes
	is "nbdkit: it doesn't fence" "$(shows survives "$(uri disk)")" "best effort"
	is "nbdkit: nor tell which process it is" "$(json '[i["server"][n] for n in ("survives",
		"instance")]' "$(uri disk)")" "['best effort', '']"
	stop_server disk
	start_nbdkit disk "$NDIO_PLUGIN" "$T/two"
	is "our plugin: it fences" "$(shows survives "$(uri disk)")" fenced
	like "our plugin: its process" "$(shows instance "$(uri disk)")" '^[0-9a-f]{32}$'
	is "our plugin: the same each time" "$(shows instance "$(uri disk)")" \
		"$(json 'i["server"]["instance"]' "$(uri disk)")"
	stop_server disk
	start_nbdkit disk --oldstyle memory 1M
	is "an old server tells nothing" "$(shows survives "$(uri disk)"): $(shows instance "$(uri disk)")" \
		"best effort: the server doesn't tell"
	stop_server disk
	start_nbdkit disk --readonly memory 1M
	is "a read-only server" "$(shows read-only "$(uri disk)")" yes
	stop_server disk
	start_qemu_nbd disk --format raw "$T/one"
	is "qemu-nbd" "$(shows kind "$(uri disk)")" LUKS1
	stop_server disk
	start_nbdkit disk "$NDIO_PLUGIN" "$T/two"
	is "our plugin without a key" "$(shows kind "$(uri disk)")" LUKS2
	stop_server disk
	start_nbdkit disk "$NDIO_PLUGIN" "$T/two" passphrase="+$T/pass"
	is "our plugin with the key" "$(json '(i["kind"], i["size"])' "$(uri disk)")" "('raw', 4194304)"
	stop_server disk
	start_nbdkit disk --filter=error memory 1M error-pread-rate=1
	ok "a server that fails" fails "sock: reading the LUKS header: .*Input/output" "$ndio" info \
		"$(uri disk)"
	stop_server disk
}

hostile() {
	cp "$T/two" "$T/bad"
	cryptsetup config --label $'red\e[31m\xff\xc2\x9b"' "$T/bad"
	is "a label's control characters aren't printed" "$(shows label "$T/bad")" 'red?[31m???"'
	is "nor in JSON" "$(json 'i["luks"]["label"]' "$T/bad")" 'red?[31m???"'
	cp "$T/two" "$T/bad"
	rewrite "$T/bad" '"config":{' '"config":{"requirements":{"mandatory":["frobnicate-v7"]},'
	is "a requirement is named" "$(shows requirements "$T/bad")" frobnicate-v7
	cp "$T/two" "$T/bad"
	rewrite "$T/bad" '"sector_size":4096' \
		'"sector_size":4096,"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}'
	is "integrity is named" "$(shows integrity "$T/bad")" "hmac(sha256)"
	cp "$T/one" "$T/bad"
	chmod 600 "$T/bad"
	dd if=/dev/urandom of="$T/bad" bs=1 seek=208 count=300 conv=notrunc status=none
	ok "a damaged header" fails "$T/bad: the LUKS header is damaged" "$ndio" info "$T/bad"
	head -c 5000 "$T/two" >"$T/bad"
	ok "a truncated header" fails "$T/bad: .*LUKS header" "$ndio" info "$T/bad"
	head -c 1M "$T/two" >"$T/bad"
	ok "a truncated volume" fails "$T/bad: .*rest of it is missing" "$ndio" info "$T/bad"
	printf x >"$T/"$'\e[31m'
	is "a file name's control characters" "$("$ndio" info "$T/"$'\e[31m' | head -n 1)" "$T/?[31m:"
	ok "and in a message" fails "^ndio: $T/.\[31m.none: No such" "$ndio" info "$T/"$'\e[31m.none'
}

wrong() {
	ok "no file" fails "^ndio: $T/nothing: No such file" "$ndio" info "$T/nothing"
	ok "a folder" fails "^ndio: $T: " "$ndio" info "$T"
	ok "a device that is no disk" fails "^ndio: /dev/null: not a" "$ndio" info /dev/null
	ok "no server" fails "^ndio: nbd://127.0.0.1:1/: .*refused" "$ndio" info nbd://127.0.0.1:1/
	ok "no socket" fails "^ndio: nbd\+unix.*: .*No such file" "$ndio" info "$(uri nothing)"
	ok "no export" eval 'start_nbdkit disk --filter=exportname null 1M exportname=a \
		exportname-strict=true && fails "^ndio: nbd.*disk.sock: " "$ndio" info "$(uri disk b)"
		stop_server disk'
	ok "a URI that is none" fails "^ndio: nbd\+unix://: " "$ndio" info nbd+unix://
	ok "another kind of URI" fails "^ndio: http://host/: " "$ndio" info http://host/
	ok "no detached header" fails "^ndio: $T/nothing: No such" "$ndio" info --header "$T/nothing" \
		"$T/raw"
	ok "a detached header that is none" fails "^ndio: $T/raw: not a LUKS" "$ndio" info \
		--header "$T/raw" "$T/data"
	ok "a full disk" fails "standard output: No space" eval '"$ndio" info "$T/raw" >/dev/full'
	ok "a closed pipe" eval '(sleep 0.3; "$ndio" info "$T/raw" 2>"$T/said"; echo $? >"$T/status") |
		true; sleep 0.1; [ "$(cat "$T/status")" = 1 ]'
	for wrong in "info" "info a b" "info --nonsense a" "info --key-fd x a" "" "nonsense" "help nonsense" \
		"--nonsense"; do
		# shellcheck disable=SC2086
		ok "a usage error: ndio $wrong" usage "$ndio" $wrong
	done
	like "--version" "$("$ndio" --version)" '^ndio [0-9]+\.[0-9]+\.[0-9]+$'
	for command in format info copy key psk; do
		is "help $command" "$("$ndio" help $command)" "$("$ndio" $command --help)"
	done
	like "--help names the commands" "$("$ndio" --help)" "format.*info.*copy.*key.*psk"
}

files
unlocked
servers
hostile
wrong
done_testing
