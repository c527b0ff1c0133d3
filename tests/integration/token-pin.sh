#!/bin/bash
# A token that wants a PIN, wherever it is asked for: a smart card, made of software (SoftHSM), that we bind a
# volume to and systemd-cryptenroll does. Typed, as a credential, wrong, and where there is nobody.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

for program in softhsm2-util p11tool systemd-cryptenroll; do
	command -v $program >/dev/null || skip_all "no $program here"
done
ls /usr/lib/*/cryptsetup/libcryptsetup-token-systemd-pkcs11.so >/dev/null 2>&1 ||
	skip_all "no systemd with a plugin for smart cards here"

# p11-kit's modules, and libcryptsetup's, have leaks of their own.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
disk=$T/disk
card="pkcs11:token=ndio;object=key"
token="$disk: token 0 (systemd-pkcs11)"

# start_card NAME: the one that is in the reader from now on.
start_card() {
	mkdir -p "$T/$1"
	printf '%s\n' "directories.tokendir = $T/$1" "objectstore.backend = file" "log.level = ERROR" >"$T/$1.conf"
	export SOFTHSM2_CONF=$T/$1.conf
}

make_card() { # NAME
	start_card "$1"
	softhsm2-util --init-token --free --label ndio --pin card-pin --so-pin card-so-pin &&
		openssl req -x509 -newkey rsa:2048 -noenc -subj /CN=x -keyout "$T/key.pem" -out "$T/cert.pem" &&
		softhsm2-util --import "$T/key.pem" --token ndio --label key --id a1 --pin card-pin &&
		GNUTLS_PIN=card-pin p11tool --batch --login --write --load-certificate "$T/cert.pem" --label key \
			--id a1 pkcs11:token=ndio
}

# asked LINES COMMAND...: at a terminal; what it printed.
asked() {
	terminal "$@" 2>&1 || echo "status $?"
}

bound() {
	make_luks2 "$disk" 18M
	start_serve disk "$disk"
	like "bound to a card, over NBD" "$(asked "noecho PIN for $card (systemd-pkcs11): => card-pin" \
		"$ndio" key bind --key-file "$T/pass" pkcs11 "$card" "$(uri disk)")" "token 0 added"
	stop_server disk
	like "it is listed" "$("$ndio" key list "$disk")" " 0  systemd-pkcs11 +2"
	is "and the slot that it took meanwhile is free" "$(cryptsetup luksDump "$disk" | grep -c '^  [0-9]*: luks2')" 2
	printf card-pin >"$T/pin"
	ok "cryptsetup opens it" sh -c 'cryptsetup open --test-passphrase --token-only "$1" <"$2"' - "$disk" "$T/pin"
	cp "$disk" "$T/before"
	like "a wrong PIN binds nothing" "$(asked "noecho PIN for $card (systemd-pkcs11): => not-the-pin" \
		"$ndio" key bind --key-file "$T/pass" pkcs11 "$card" "$disk")" "systemd-cryptenroll: .*status 1"
	ok "and changes nothing" cmp "$disk" "$T/before"
}

typed() {
	like "info asks" "$(asked "noecho PIN for $token: => card-pin" "$ndio" info --token any "$disk")" \
		"unlocked: +yes"
	like "a wrong one is asked for again" "$(asked "noecho PIN for $token: => not-the-pin
noecho PIN for $token: => card-pin" "$ndio" info --token 0 "$disk")" "doesn't take this PIN.*unlocked: +yes"
	like "three are enough: then the passphrase" "$(asked "noecho PIN for $token: => not-the-pin
noecho PIN for $token: => not-this-one
noecho PIN for $token: => nor-that-one
noecho Passphrase for $disk: => $(cat "$T/pass")" "$ndio" info --token any "$disk")" \
		"token 0 .*no PIN.*unlocked: +yes"
	like "copy asks" "$(asked "noecho PIN for $token: => card-pin" "$ndio" copy --src-token=any "$disk" "$T/out" &&
		stat -c %s "$T/out")" "2097152"
	like "key asks" "$(asked "noecho PIN for $token: => card-pin" "$ndio" key add --token any \
		--new-key-file "$T/new" "${cheap[@]}" "$disk")" "key slot 1 added"
	ok "and does it" opens "$disk" "$T/new"
}

by_credential() {
	mkdir "$T/credentials"
	cp "$T/pin" "$T/credentials/cryptsetup.pkcs11-pin"
	export CREDENTIALS_DIRECTORY=$T/credentials
	like "info takes a credential" "$(setsid "$ndio" info --token any "$disk" </dev/null 2>&1)" "unlocked: +yes"
	like "bind, too" "$(setsid "$ndio" key bind --key-file "$T/pass" pkcs11 "$card" "$disk" </dev/null 2>&1)" \
		"token 1 added"
	like "and its token opens" "$(setsid "$ndio" info --token 1 "$disk" </dev/null 2>&1)" "unlocked: +yes"
	unset CREDENTIALS_DIRECTORY
	like "unbind, by the other one, asks once" "$(asked "noecho PIN for $token: => card-pin" \
		"$ndio" key unbind --token 0 1 "$disk")" "token 1 removed"
}

# Without a terminal, and where nobody may be asked.
nobody() {
	like "the plugin asks nobody" "$(env LD_PRELOAD="$NDIO_PRELOAD" nbdkit -U - "$NDIO_PLUGIN" "$disk" token=any \
		--run true 2>&1)" "token 0 .*it needs a PIN, and nobody is asked for it"
	like "nor does serve" "$("$NDIO_BUILD/ndio-serve" --token any --run true "$disk" 2>&1 </dev/null)" \
		"token 0 .*it needs a PIN, and nobody is asked for it"
	like "the plugin goes on to its key" "$(env LD_PRELOAD="$NDIO_PRELOAD" nbdkit -U - "$NDIO_PLUGIN" "$disk" \
		token=any passphrase=+"$T/pass" --run 'nbdinfo --size "$uri"' 2>&1)" "2097152"
	start_card none
	like "no card: told, and then the passphrase" "$(asked "noecho Passphrase for $disk: => $(cat "$T/pass")" \
		"$ndio" info --token any "$disk")" "token 0 \(systemd-pkcs11\): .*unlocked: +yes"
}

by_systemd() {
	make_luks2 "$disk" 18M
	start_card card
	ok "systemd-cryptenroll binds" env PIN=card-pin systemd-cryptenroll --pkcs11-token-uri="$card" \
		--unlock-key-file="$T/pass" "$disk"
	like "we open" "$(asked "noecho PIN for $token: => card-pin" "$ndio" info --token any "$disk")" "unlocked: +yes"
	ok "unbind" "$ndio" key unbind --key-file "$T/pass" 0 "$disk"
	ok "a PIN that is set is for tpm2" usage "$ndio" key bind --pin pkcs11 "$card" "$disk"
	ok "and for bind" usage "$ndio" key add --pin "$disk"
}

make_card card >"$T/card.log" 2>&1 || { diag "$(cat "$T/card.log")" && exit 1; }
bound
typed
by_credential
nobody
by_systemd
done_testing
