#!/bin/bash
# How fast nbds: is, next to nbdcopy with TLS of its own, and next to the same copy with a volume's
# key on top: in one run against one server, in turn. ROUNDS (7) rounds with MIB (512) each, of
# which the median counts. For a machine that does nothing else meanwhile.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"

rounds=${ROUNDS:-7}
mib=${MIB:-512}
declare -A seconds=() # of each round, by what was measured

# The data are in memory on both sides, so that TLS is what is measured.
M=$(mktemp -d /dev/shm/ndio-speed.XXXXXX) || exit 1
trap 'rm -rf "$M"; clean_up' EXIT

# measure WHAT COMMAND...
measure() {
	local what=$1 start=$EPOCHREALTIME

	shift
	if ! "$@" >"$T/out" 2>&1; then
		diag "$what: $(cat "$T/out")"
		echo "Bail out! $what failed"
		exit 1
	fi
	seconds[$what]+=" $(awk "BEGIN { print $EPOCHREALTIME - $start }")"
}

median() { # NUMBER...
	printf '%s\n' "$@" | sort -g | awk '{ a[NR] = $1 }
		END { printf "%.3f", NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'
}

# ratios WHAT OTHER: how many times as fast, in each round.
ratios() {
	paste -d ' ' <(printf '%s\n' ${seconds[$1]}) <(printf '%s\n' ${seconds[$2]}) |
		awk '{ print $2 / $1 }'
}

# at_least WANTED NAME RATIO...: in the median.
at_least() {
	local wanted=$1 name=$2 got

	shift 2
	got=$(median "$@")
	ok "$name: $got times as fast, at least $wanted" awk "BEGIN { exit !($got >= $wanted) }"
}

compare() { # NAME URI URI-OF-OUR-SERVER
	local name=$1 uri=$2 ours=$3 i

	for ((i = 0; i < rounds; i++)); do
		measure "$name, nbdcopy reads" nbdcopy "$uri" null:
		measure "$name, ndio reads" "$ndio" copy "$uri" null:
		measure "$name, nbdcopy writes" nbdcopy "$M/data" "$uri"
		measure "$name, ndio writes" "$ndio" copy "$M/data" "$uri"
		measure "$name, ndio with ndio serve reads" "$ndio" copy "$ours" null:
		measure "$name, ndio with ndio serve writes" "$ndio" copy "$M/data" "$ours"
	done
}

# sealed URI PLAIN-URI: with the volume's key, next to the same without.
sealed() {
	local i

	for ((i = 0; i < rounds; i++)); do
		measure "with the volume's key, reads" "$ndio" copy --src-key-file "$T/pass" "$1" null:
		measure "without, reads" "$ndio" copy "$2" null:
		measure "with the volume's key, writes" "$ndio" copy --dst-key-file "$T/pass" \
			"$M/data" "$1"
		measure "without, writes" "$ndio" copy "$M/data" "$2"
	done
}

tell() { # WHAT...
	local what

	for what in "$@"; do
		# shellcheck disable=SC2086
		awk "BEGIN { printf \"# %5.0f MiB/s: $what\\n\", $mib / $(median ${seconds[$what]}) }"
	done
}

make_tls
head -c "${mib}M" /dev/urandom >"$M/data"

cp "$M/data" "$M/disk"
start_serve ours --direct off --tls-psk "$psk" "$M/disk"
start_stock key --tls=require --tls-psk="$psk" memory "${mib}M"
nbdcopy "$M/data" "$(with_psk key)"
compare key "$(with_psk key)" "$(with_psk ours)"
stop_server ours
start_server ours "$NDIO_BUILD/ndio-serve" --listen 127.0.0.1:0 --pid-file "$T/ours.pid" --direct off \
	--tls-certificates "$tls" "$M/disk"
sed -n 's/.*listening on .*:\([0-9]*\)$/\1/p' "$T/ours.log" >"$T/ours.port"
start_tcp_nbdkit certificates --tls=require --tls-certificates="$tls" memory "${mib}M"
nbdcopy "$M/data" "$(tcp_with_certificates certificates)"
compare certificates "$(tcp_with_certificates certificates)" "$(tcp_with_certificates ours)"
stop_server certificates
stop_server ours
start_stock volume --tls=require --tls-psk="$psk" memory $((mib + 16))M
make_luks2 "$M/volume" $((mib + 16))M --sector-size 4096
nbdcopy "$M/volume" "$(with_psk volume)"
"$ndio" copy --dst-key-file "$T/pass" "$M/data" "$(with_psk volume)"
sealed "$(with_psk volume)" "$(with_psk key)"

for name in key certificates; do
	for what in reads writes; do
		tell "$name, nbdcopy $what" "$name, ndio $what" "$name, ndio with ndio serve $what"
	done
done
tell "with the volume's key, reads" "without, reads" "with the volume's key, writes" \
	"without, writes"

# shellcheck disable=SC2046
{
	for what in reads writes; do
		at_least 2.2 "a pre-shared key, $what, next to nbdcopy" \
			$(ratios "key, ndio $what" "key, nbdcopy $what")
	done
	at_least 2.5 "a pre-shared key, both" $(ratios "key, ndio reads" "key, nbdcopy reads") \
		$(ratios "key, ndio writes" "key, nbdcopy writes")
	for what in reads writes; do
		at_least 1.0 "certificates, $what, next to nbdcopy" \
			$(ratios "certificates, ndio $what" "certificates, nbdcopy $what")
	done
	for what in reads writes; do
		at_least 4 "a pre-shared key, $what, at ndio serve next to nbdcopy at nbdkit" \
			$(ratios "key, ndio with ndio serve $what" "key, nbdcopy $what")
		at_least 1.5 "certificates, $what, at ndio serve next to nbdcopy at nbdkit" \
			$(ratios "certificates, ndio with ndio serve $what" "certificates, nbdcopy $what")
	done
	for what in reads writes; do
		at_least 0.75 "the volume's key on top, $what" \
			$(ratios "with the volume's key, $what" "without, $what")
	done
}
done_testing
