#!/bin/bash
# How other clients that reconnect fare, and this one beside them: nbdkit's nbd plugin with the retry
# filter, and qemu's reconnect-delay. Their servers are nbdkit with its file plugin or with ours. A table
# for doc/survival.md is printed; what is tested is only that each of them came through it.
#
# SURVIVE=COUNT: how many faults of each kind.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"

FAULTS= # these here
count=${SURVIVE:-10}
[ "$count" -le 20 ] || count=20
survive_limit=300

# start_program PROGRAM ADDRESS PORT: a gateway at $T/gateway.sock.
start_program() {
	case $1 in
	retry)
		start_stock gateway --filter=retry nbd uri="nbd://$2:$3" retry=60 retries=60 \
			retry-delay=1 retry-exponential=no
		;;
	qemu)
		start_qemu_nbd gateway --image-opts \
			"driver=nbd,server.type=inet,server.host=$2,server.port=$3,reconnect-delay=60"
		;;
	ndio)
		start_nbdkit gateway "$NDIO_PLUGIN" uri="nbd://$2:$3" reconnect=60
		;;
	esac
}

# Rounds in which reads began to be wrong, or which were seen to be so before the next.
damaged() {
	sed -n 's/^\(marked\|ready\) violations=/\1 /p; s/^violations=\([0-9]*\) .*/end \1/p' "$T/registers.said" |
		awk '$2 > before && !seen { rounds++; seen = 1 }
			$1 == "marked" { seen = 0 }
			{ before = $2 }
			END { print rounds + 0 }'
}

# How long operations waited, most of all: ms.
longest() {
	sed -n 's/^operations=.* max_ms=\([0-9]*\).*/\1/p' "$T/registers.said"
}

# row FAULT-NAME SERVER PROGRAM ADDRESS PORT FAULT...
row() {
	local fault=$1 server=$2 program=$3 status

	if ! start_program "$program" "$4" "$5"; then
		result 1 "$program starts"
		return
	fi
	start_registers "$registers" --may-fail --nbd "$(uri gateway)" && again "$count" "${@:6}" &&
		goes_on 1000
	status=$?
	end_registers
	result $status "$program, $fault, $server's server" || diag "$(tail -n 10 "$T/registers.said")"
	echo "# | $fault | $server | $program | $(damaged) of $count | $(value violations) | $(
		value errors) | $(longest) |"
	kill -KILL "${server_pids[gateway]}"
	{ wait "${server_pids[gateway]}"; } 2>/dev/null
	unset "server_pids[gateway]"
}

# direct FAULT-NAME PLUGIN FAULT...; network: with a network between.
direct() {
	local address program server=nbdkit

	[ "$2" != "$NDIO_PLUGIN" ] || server=ndio
	for program in retry qemu ndio; do
		address=$(own_address)
		serve=(nbdkit --foreground --exit-with-parent --pidfile "$T/disk.pid"
			--ipaddr "$address" --port 10809 "$2" "$T/disk")
		start_disk && row "$1" $server $program "$address" 10809 "${@:3}"
		kill_disk
	done
}

network() {
	local program server=nbdkit

	[ "$2" != "$NDIO_PLUGIN" ] || server=ndio
	for program in retry qemu ndio; do
		serve=(nbdkit --foreground --exit-with-parent --pidfile "$T/disk.pid"
			--unix "$T/disk.sock" "$2" "$T/disk")
		start_disk && start_network &&
			row "$1" $server $program 127.0.0.1 "$(cat "$T/network.port")" "${@:3}"
		end_talker network
		kill_disk
	done
}

truncate -s 16M "$T/disk"
echo "# $(nbdkit --version), $(qemu-nbd --version | head -n 1), libnbd $(pkg-config --modversion libnbd), $(date +%F)"
echo "# | fault | server | client | rounds with damage | wrong reads | errors | longest, ms |"
echo "# |---|---|---|---|---|---|---|"
for plugin in file "$NDIO_PLUGIN"; do
	disk_preload=
	direct "killed" $plugin fault_kill
	disk_preload=$volatile
	direct "killed, forgets" $plugin fault_forget
	network "bytes held back" $plugin fault_late
	network "disk stalls 4 s" $plugin fault_stall 4
	network "connections cut" $plugin fault_cut
done
done_testing
