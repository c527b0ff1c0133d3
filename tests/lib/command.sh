# Helpers for tests of the ndio command: `. tests/lib/lib.sh` and then this.
# shellcheck shell=bash disable=SC2034,SC2154

ndio=$NDIO_BUILD/ndio

# The cheapest key derivation that cryptsetup allows.
cheap=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

# Other keys than $T/pass.
printf 'new key' >"$T/new"
printf 'third key' >"$T/third"
printf 'wrong key' >"$T/wrong"

# opens FILE KEY-FILE [CRYPTSETUP-OPTION...]: as cryptsetup sees it.
opens() {
	cryptsetup open --test-passphrase --key-file "$2" "${@:3}" "$1"
}

# fails REGEX COMMAND...: with status 1, and one line on stderr that matches, but for what is said of
# limits.
fails() {
	local want=$1 said status

	shift
	said=$("$@" 2>&1 >/dev/null </dev/null)
	status=$?
	said=$(without_limits <<<"$said")
	[ "$status" = 1 ] && [[ $said =~ $want ]] && [ "$(wc -l <<<"$said")" = 1 ] && return
	diag "status $status: $said"
	return 1
}

# usage COMMAND...: status 2, and where help is.
usage() {
	local said status

	said=$("$@" 2>&1 >/dev/null </dev/null)
	status=$?
	[ "$status" = 2 ] && [[ $said = *'Try "ndio'*'--help"'* ]] && return
	diag "status $status: $said"
	return 1
}

# shown LOCATOR: ndio info gets at it, and shows it, be it LUKS or not.
shown() {
	local said status

	said=$(timeout 25 "$ndio" info "$@" 2>&1 >/dev/null)
	status=$?
	[ "$status" = 0 ] && return
	[ "$status" = 1 ] && [ "$said" = "ndio: ${!#}: not a LUKS volume" ] && return
	diag "status $status: $said"
	return 1
}

# terminal LINES COMMAND...: on a terminal, answering as LINES say; see terminal.py.
terminal() {
	printf '%s\n' "$1" >"$T/script"
	shift
	python3 "$root/tests/tools/terminal.py" "$T/script" "$@"
}

# A LUKS2 volume, $T/disk, with room for three keys.
make_small() {
	make_luks2 "$T/disk" 3M --luks2-keyslots-size 1M --offset 4096 >/dev/null
}

# run_lines STEP LINES: commands of a page, in this shell, up to the first that fails.
run_lines() {
	local line lines

	mapfile -t lines <<<"$2"
	[ -n "$2" ] || { echo "no step $1"; return 1; }
	for line in "${lines[@]}"; do
		echo "$line"
		eval "$line" || return
	done
}
