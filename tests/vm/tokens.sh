#!/bin/bash
# A machine that comes to its remote disks with nobody there: by a Tang server, by its TPM. Where the server is
# away it asks; a disk that is bound to another TPM stays shut, and one with a PIN without that. What was bound
# before it was switched off comes up when it is switched on again.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"
# shellcheck source=../lib/tang.sh
. "$root/tests/lib/tang.sh"

GUEST_TIMEOUT=300 # a shell script in an emulated machine

plugins=/usr/lib/x86_64-linux-gnu
plugin=$plugins/cryptsetup/libcryptsetup-token-systemd-tpm2.so
has_tang || skip_all "no clevis, Tang server or socat here"
command -v swtpm >/dev/null || skip_all "no swtpm here"
[ -e $plugin ] && [ -e $plugins/libtss2-esys.so.0 ] || skip_all "no systemd with a plugin for TPMs here"

# start_tpm NAME: one that the machine has, or another, for programs here.
start_tpm() {
	mkdir -p "$T/$1.state"
	start_server "$1" swtpm socket --tpm2 --tpmstate "dir=$T/$1.state" --pid "file=$T/$1.pid" "${@:2}"
}

programs=(bash curl jose)
for program in clevis clevis-decrypt clevis-decrypt-tang; do
	programs+=("/usr/bin/$program=/bin/$program")
done
programs+=("$(command -v systemd-cryptenroll)=/bin/systemd-cryptenroll" "$plugin=${plugin#/usr}")
for library in esys rc mu tcti-device; do
	programs+=("$plugins/libtss2-$library.so.0=$plugins/libtss2-$library.so.0")
done

machine_options=(-chardev "socket,id=tpm,path=$T/tpm.ctrl" -tpmdev emulator,id=tpm0,chardev=tpm
	-device tpm-tis,tpmdev=tpm0)

# switch_on: the same machine, with the same TPM.
switch_on() {
	start_tpm tpm --ctrl "type=unixio,path=$T/tpm.ctrl" || exit 1
	boot_ndio 2 "${programs[@]}"
	guest "ln -s /proc/self/fd /dev/fd; mkdir -p /etc; grep -q . /etc/passwd 2>/dev/null || echo root:x:0:0::/:/bin/sh >/etc/passwd"
}

switch_off() {
	{
		kill -KILL "${server_pids[vm]}" "${server_pids[tpm]}"
		wait "${server_pids[vm]}" "${server_pids[tpm]}"
		unset "server_pids[vm]" "server_pids[tpm]"
	} 2>/dev/null
	exec {to_guest}>&- {from_guest}<&-
	rm -f "$T/guest.in" "$T/guest.out" "$T/tpm.ctrl"
}

switch_on

start_tang tang
for name in by-tang by-tpm by-pin other; do
	make_luks2 "$T/$name" 20M
	serve "$name" "$T/$name" || exit 1
done

# attached_by_itself NAME: as the line of a table has it, at boot; and mounted, where nothing is typed.
comes_up() {
	guest "echo nbd0 $(locator "$1") none token=any,answer-timeout=250,reconnect=0 >/etc/ndiotab
		ndio attach --tab nbd0 && dd if=/dev/nbd0 of=/dev/null bs=1M count=1 2>&1 && ndio detach nbd0"
}

# Its address is another for the guest, whose clevis is slow.
by_tang() {
	curl -sf "$tang/adv" -o "$T/adv"
	like "bound to the Tang server" "$(clevis encrypt tang "{\"url\":\"${tang/127.0.0.1/10.0.2.2}\",\"adv\":\"$T/adv\"}" \
		<"$T/pass" | jose jwe fmt -i- -o- | python3 -c 'import json, sys
print(json.dumps({"type": "clevis", "keyslots": ["0"], "jwe": json.load(sys.stdin)}))' >"$T/token" &&
		cryptsetup token import --json-file "$T/token" "$T/by-tang" && "$NDIO_BUILD/ndio" key list "$T/by-tang")" \
		"clevis +0  tang http://10.0.2.2"
	like "it comes up by itself" "$(comes_up by-tang)" "^/dev/nbd0"
	end_tang tang
	like "the server is away: it asks, and nobody is there" "$(comes_up by-tang)" \
		"token 0 \(clevis, tang http://10.0.2.2:[0-9]+\): Error communicating .*ndio: "
	ok "and nothing is left" guest nothing_left
}

by_tpm() {
	like "bound to the TPM, over NBD" "$(guest ndio key bind --answer-timeout 250 --key-file /run/pass tpm2 \
		"$(locator by-tpm)")" "token 0 added"
	like "it comes up by itself, too" "$(comes_up by-tpm)" "^/dev/nbd0"
	is "the key slot for a while is gone" "$("$NDIO_BUILD/ndio" info --json "$(tcp_uri by-tpm)" | python3 -c 'import json, sys
luks = json.load(sys.stdin)["luks"]
print([s["slot"] for s in luks["key_slots"]] == [0] + luks["tokens"][0]["key_slots"])')" True
}

# with_pin COMMAND...: in the guest, as a service whose credential that is.
with_pin() {
	guest "mkdir -p /run/credentials; printf %s 'the TPM pin' >/run/credentials/cryptsetup.tpm2-pin
		export CREDENTIALS_DIRECTORY=/run/credentials; $*"
}

by_pin() {
	like "bound to the TPM and a PIN, over NBD" "$(with_pin ndio key bind --answer-timeout 250 --key-file /run/pass \
		--pin tpm2 "$(locator by-pin)")" "token 0 added"
	is "its token says so" "$(cryptsetup token export --token-id 0 "$T/by-pin" | python3 -c 'import json, sys
print(json.load(sys.stdin)["tpm2-pin"])')" True
}

after_a_night() {
	switch_off
	switch_on
	like "switched on again, it comes up by itself" "$(comes_up by-tpm)" "^/dev/nbd0"
	like "with a PIN it doesn't, where nobody is there" "$(comes_up by-pin)" \
		"token 0 \(systemd-tpm2\): .*PIN.*ndio: "
	ok "and nothing is left" guest nothing_left
	like "but with its credential" "$(with_pin ndio attach --token any --answer-timeout 250 "$(locator by-pin)" nbd0 \
		"&& dd if=/dev/nbd0 of=/dev/null bs=1M count=1 2>&1 && ndio detach nbd0")" "^/dev/nbd0"
}

other_tpm() {
	local said

	start_tpm tpm2 --server "type=unixio,path=$T/tpm2.sock" --ctrl "type=unixio,path=$T/tpm2.sock.ctrl" \
		--flags not-need-init,startup-clear
	ok "enrolled by systemd-cryptenroll, with another TPM" systemd-cryptenroll \
		--tpm2-device="swtpm:path=$T/tpm2.sock" --unlock-key-file="$T/pass" --tpm2-pcrs=16 "$T/other"
	said=$(comes_up other)
	like "another TPM: refused" "$said" "token 0 \(systemd-tpm2\): .*ndio: "
	ok "another TPM: not for want of one, or of a library" not grep -E "no such device|isn't there" <<<"$said"
	ok "another TPM: and nothing is left" guest nothing_left
	ok "unbound" "$NDIO_BUILD/ndio" key unbind --no-lock-image --key-file "$T/pass" 0 "$T/other"
}

by_tpm
by_pin
after_a_night
other_tpm
by_tang
sound_kernel
done_testing
