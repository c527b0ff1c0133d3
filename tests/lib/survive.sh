# What is done to servers while a program uses a disk, and that program: `. tests/lib/survive.sh` after
# lib.sh and tls.sh.
#
# The server is named "disk" and serves $T/disk, by $serve. The program is tests/registers, which is
# told of each fault, and says when all goes on.
# shellcheck shell=bash disable=SC2154

registers=$NDIO_BUILD/tests/registers/registers
volatile=$NDIO_BUILD/tests/preload/volatile-disk.so
survive_limit=120 # seconds that anything may take

# ---- programs that are told what to do ----

declare -A say_fd=() hear_fd=()

# start_talker NAME COMMAND...: it reads lines that it is told, and writes lines. $T/NAME.err has what
# it says besides.
start_talker() {
	local name=$1 in out

	shift
	rm -f "$T/$name.in" "$T/$name.out"
	mkfifo "$T/$name.in" "$T/$name.out"
	"$@" <"$T/$name.in" >"$T/$name.out" 2>"$T/$name.err" &
	server_pids[$name]=$!
	exec {in}>"$T/$name.in" {out}<"$T/$name.out"
	say_fd[$name]=$in
	hear_fd[$name]=$out
}

# In a shell of its own, which SIGPIPE may end.
say() { # NAME LINE
	(echo "$2" >&"${say_fd[$1]}")
}

# hear NAME REGEX [COMMAND...]: reads lines until one matches; all are added to $T/NAME.said. The
# command is run now and then meanwhile.
hear() {
	local name=$1 regex=$2 line='' part status deadline=$((SECONDS + survive_limit))

	shift 2
	while [ $SECONDS -le $deadline ]; do
		IFS= read -r -t 0.1 -u "${hear_fd[$name]}" part
		status=$?
		line=$line$part # when time is up, half of one, or all but its newline: bash may lose that
		if [ $status = 0 ] || [[ $line =~ $regex ]]; then
			echo "$line" >>"$T/$name.said"
			[[ ! $line =~ $regex ]] || return 0
			line=
		elif [ $status -le 128 ]; then
			break # it has ended
		fi
		[ $# = 0 ] || "$@" || return
	done
	echo "$name doesn't say '$regex': $(tail -n 5 "$T/$name.said" "$T/$name.err" 2>&1)"
	return 1
}

ask() { # NAME LINE
	say "$1" "$2" && hear "$1" '^ok' mind_disk
}

# end_talker NAME: all that it still says goes to $T/NAME.said. Its status. It is told, since servers
# that were started after it have its pipe open, too.
end_talker() {
	local name=$1 in=${say_fd[$1]} out=${hear_fd[$1]} status

	say "$name" end 2>/dev/null
	exec {in}>&-
	timeout "$survive_limit" cat <&"$out" >>"$T/$name.said"
	exec {out}<&-
	wait "${server_pids[$name]}"
	status=$?
	unset "server_pids[$name]" "say_fd[$name]" "hear_fd[$name]"
	return $status
}

# ---- the server ----

# own_address: an address of this machine's that no other test has, so that a server can come back to
# its port.
own_address() {
	echo "127.$((1 + RANDOM % 254)).$((BASHPID / 254 % 256)).$((1 + BASHPID % 254))"
}

# start_disk: $serve is a command that has --foreground and --pidfile "$T/disk.pid" among its
# arguments. What it doesn't flush is forgotten when it is killed, and it can be stalled, unless
# $disk_preload is "".
disk_preload=$volatile
start_disk() {
	start_server disk env LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }$disk_preload" \
		VOLATILE_DISK="$T/disk" VOLATILE_DISK_STALL="$T/stall" "${serve[@]}"
}

# nbdkit may end by an assertion of its own when a client resets a connection whose replies several
# threads are sending. Then it is started again, as systemd would do it. Nothing else may end it.
nbdkit_failures=0
mind_disk() {
	! kill -0 "${server_pids[disk]}" 2>/dev/null || return 0
	if ! grep -q 'connections.c:.*raw_send_.*Assertion' "$T/disk.log"; then
		wait "${server_pids[disk]}" 2>/dev/null
		echo "the server has ended, status $?: $(tail -n 40 "$T/disk.log")"
		return 1
	fi
	nbdkit_failures=$((nbdkit_failures + 1))
	kill_disk
	start_disk
}

kill_disk() {
	{
		kill -KILL "${server_pids[disk]}"
		wait "${server_pids[disk]}"
	} 2>/dev/null
	unset "server_pids[disk]"
	rm -f "$T/disk.sock"
}

start_network() { # a TCP port, $T/network.port, in front of $T/disk.sock
	rm -f "$T/network.pid"
	start_talker network "$NDIO_BUILD/tests/servers/holding-proxy" -p "$T/network.port" \
		-i "$T/network.pid" "$T/disk.sock"
	until [ -s "$T/network.pid" ]; do
		kill -0 "${server_pids[network]}" || return
		sleep 0.02
	done
}

# ---- the program ----

# start_registers COMMAND...: $registers with arguments, and perhaps something in front.
start_registers() {
	rm -f "$T/registers.said"
	start_talker registers "$@" --state "$T/state" && hear registers '^begun'
}

mark() { # NAME
	say registers "mark $1"
}

up() {
	say registers up
}

# goes_on [OPERATIONS=100]: so many operations begin and end, and all before them.
goes_on() {
	say registers "wait ${1:-100}" && hear registers '^ready' mind_disk
}

# end_registers: 0 if there was no violation and no error.
end_registers() {
	end_talker registers
}

# value NAME: of those that registers printed at the end.
value() {
	sed -n "s/^violations=/ &/; s/.*[[:space:]]$1=\([0-9]*\).*/\1/p" "$T/registers.said" | tail -n 1
}

# ---- faults ----

# What the server had written stays.
fault_kill() {
	mark kill
	kill_disk
	start_disk || return
	up
	goes_on
}

# The same with a server that is preloaded: what it hadn't flushed is forgotten.
fault_forget() {
	mark forget
	kill_disk
	start_disk || return
	up
	goes_on
}

# fault_stop SECONDS: the server is stopped for so long.
fault_stop() {
	mark stop
	freeze "${server_pids[disk]}"
	sleep "$1"
	kill -CONT "${server_pids[disk]}"
	up
	goes_on
}

# The server may just end by itself: then there are other connections. And who has one request in
# flight on each may have no write among them.
held_for=0
mind_hold() {
	held_for=$((held_for + 1))
	[ $held_for != 20 ] || say network 'hold 1'
	! kill -0 "${server_pids[disk]}" 2>/dev/null || return 0
	mind_disk && goes_on && say network 'hold 4096'
}

# What old connections have sent comes when newer ones have long done their work.
fault_late() {
	mark late
	held_for=0
	say network 'hold 4096' && hear network '^ok' mind_hold && ask network part || return
	up
	goes_on && ask network release && goes_on && ask network close && goes_on
}

# fault_stall SECONDS: writes hang in the disk, and everybody reconnects; if the server lets newer
# writes pass, they pass.
fault_stall() {
	local deadline=$((SECONDS + survive_limit))

	mark stall
	rm -f "$T/stall.waiting"
	: >"$T/stall"
	until [ -s "$T/stall.waiting" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.01
	done
	ask network cut || return
	mv "$T/stall" "$T/stall.held"
	sleep "$1"
	rm "$T/stall.held"
	up
	goes_on
}

fault_cut() {
	mark cut
	ask network cut || return
	up
	goes_on
}

# The connections are lost, and neither side is told.
fault_lose() {
	mark lose
	ask network lose || return
	up
	goes_on
}

# fault_link SECONDS: as for root, between the name space of make_link and this one.
fault_link() {
	mark link
	ip link set "$link" down
	sleep "$1"
	ip link set "$link" up
	up
	goes_on
}

# make_link: a name space, $space, that sees this one at the address $link_address, by the link $link.
link='' space='' link_address=''
make_link() {
	local net=10.$((64 + RANDOM % 64)).$((BASHPID % 256))

	space=ndio-$$
	link=ndio$$
	link_address=$net.1
	ip netns add "$space" &&
		ip link add "$link" type veth peer name "${link}c" netns "$space" &&
		ip address add "$link_address/24" dev "$link" &&
		ip -n "$space" address add "$net.2/24" dev "${link}c" &&
		ip link set "$link" up &&
		ip -n "$space" link set "${link}c" up &&
		ip -n "$space" link set lo up
}

remove_link() {
	if [ -n "$space" ]; then
		ip netns delete "$space"
		ip link delete "$link"
	fi 2>/dev/null
}
trap 'remove_link; clean_up' EXIT

for fault in ${FAULTS:-}; do
	declare -F "fault_$fault" >/dev/null || {
		diag "FAULTS: $fault is none"
		exit 1
	}
done

# are_chosen KIND...: is one of these kinds of fault to be tried? All are, unless $FAULTS says which.
are_chosen() {
	local kind

	for kind; do
		[[ -n ${FAULTS:-} && " $FAULTS " != *" $kind "* ]] || return 0
	done
	return 1
}

# again COUNT FAULT ARGUMENT...: so many times, if it is chosen. What the last one said is shown if it fails.
again() {
	local count=$1 i

	shift
	are_chosen "${1#fault_}" || return 0
	for ((i = 0; i < count; i++)); do
		"$@" || {
			echo "at round $i of $count: $*"
			return 1
		}
	done
}

# shorter_and_longer COUNT COMMAND SHORT LONG: a fault that takes a while, most times SHORT seconds.
shorter_and_longer() {
	again $(($1 - $1 / 5)) "$2" "$3" && again $(($1 / 5)) "$2" "$4"
}

# ---- a disk by libndio, or by a gateway with it ----

# How a client reaches the server at this address and port.
survive_locator() { # TRANSPORT ADDRESS PORT
	if [ "$1" = tls ]; then
		echo "nbds://alice@$2:$3/?tls-psk-file=$psk"
	else
		echo "nbd://$2:$3/"
	fi
}

# try_client CLIENT LOCATOR: registers uses it, through the library or a gateway; $in_space is put
# before what talks to the server. A server that is silent for a second is lost.
in_space=()
try_client() {
	if [ "$1" = library ]; then
		start_registers "${in_space[@]}" "$registers" --reconnect 60 --answer 1 --discard \
			--key "$T/pass" "$2"
		return
	fi
	door_command --foreground --exit-with-parent --unix "$T/gateway.sock" \
		--pidfile "$T/gateway.pid" uri="$2" reconnect=60 answer=1 discard=on passphrase=+"$T/pass"
	start_server gateway "${in_space[@]}" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}" &&
		start_registers "$registers" --nbd "$(uri gateway)"
}

# start_client CLIENT LOCATOR: until it is there. Who opens a disk isn't waited with, and on a busy machine
# a server that has just been started may need more than that second.
start_client() {
	local deadline=$((SECONDS + survive_limit))

	until try_client "$@"; do
		[ -z "${server_pids[registers]:-}" ] || end_talker registers
		grep -qs 'has not answered for 1 second' "$T/gateway.log" "$T/registers.err" &&
			[ $SECONDS -le $deadline ] || return 1
		[ -z "${server_pids[gateway]:-}" ] || stop_server gateway
	done
}

# restarts_quickly NAME: where there are enough of them to say so, and nothing else keeps the machine
# busy: in 99 of 100 restarts, all that waited has ended within a second of the server's being back.
restarts_quickly() {
	local fault

	[ "${SURVIVE:-10}" -ge 100 ] || return 0
	for fault in $(sed -n 's/^fault=\(kill\|forget\) .*pause_p99_ms=\([0-9]*\).*/\1=\2/p' "$T/registers.said"); do
		ok "$1: ${fault%=*}: all goes on within a second" [ "${fault#*=}" -lt 1000 ] || diag "$fault ms"
	done
}

# survives NAME CLIENT LOCATOR COMMAND...: while the command does things to the server, there is no
# violation and no error; and in the end the disk has what it should have.
survives() {
	local name=$1 client=$2

	if ok "$name: a client starts" start_client "$client" "$3"; then
		ok "$name: it goes on" "${@:4}"
		ok "$name: no violation, no error" end_registers || diag "$(tail -n 30 "$T/registers.said")"
		diag "$name: $(grep '^fault=' "$T/registers.said")"
		restarts_quickly "$name"
	fi
	[ "$client" = library ] || ok "$name: the gateway ends well" stop_server gateway
	kill_disk
	ok "$name: what the disk has is right" "$registers" --verify --state "$T/state" \
		--key "$T/pass" "$T/disk"
}

# How the server is called, at a Unix socket or an address, by $DOOR; and what it wants to see, by TLS.
serve_at() { # TRANSPORT --unix PATH|--ipaddr ADDRESS --port PORT
	local tls=()

	[ "$1" != tls ] || tls=(--tls=require --tls-psk="$psk")
	door_command --foreground --exit-with-parent --pidfile "$T/disk.pid" "${tls[@]}" "${@:2}" "$T/disk"
	serve=("${door[@]}")
}

kills_and_stops() { # COUNT
	again "$1" fault_kill && shorter_and_longer "$1" fault_stop 0.1 1.6
}

# fewer COUNT PART: one PART of it, where it isn't meant to be many.
fewer() {
	echo $(($1 < 100 ? $1 / $2 : $1))
}

networks() { # COUNT
	again "$1" fault_late && shorter_and_longer "$1" fault_stall 0.2 2 &&
		again "$(fewer "$1" 2)" fault_cut && again "$(fewer "$1" 5)" fault_lose
}

links() { # COUNT
	shorter_and_longer "$1" fault_link 0.1 1.6
}

# survives_all CLIENT TRANSPORT COUNT: so many faults of each kind that is chosen. The disk is one of LUKS,
# and it is the client that has the key.
survives_all() {
	rm -f "$T/disk"
	make_luks2 "$T/disk" 24M --sector-size 4096
	! are_chosen kill stop forget || survives_ends "$@"
	! are_chosen late stall cut lose || survives_networks "$@"
	! are_chosen link || survives_links "$@"
}

survives_ends() {
	local client=$1 transport=$2 count=$3 name="$1, $2" address

	address=$(own_address)
	serve_at "$transport" --ipaddr "$address" --port 10809
	disk_preload=
	start_disk || return
	survives "$name, killed and stopped" "$client" "$(survive_locator "$transport" "$address" 10809)" \
		kills_and_stops "$count"
	disk_preload=$volatile
	start_disk || return
	survives "$name, killed and it forgets" "$client" \
		"$(survive_locator "$transport" "$address" 10809)" again "$count" fault_forget
}

survives_networks() {
	local client=$1 transport=$2 count=$3 name="$1, $2" port

	serve_at "$transport" --unix "$T/disk.sock"
	start_disk && start_network || return
	port=$(cat "$T/network.port")
	survives "$name, a bad network and a disk that stalls" "$client" \
		"$(survive_locator "$transport" 127.0.0.1 "$port")" networks "$count"
	end_talker network
}

survives_links() {
	local name="$1, $2, a link that goes down"

	if [ "$(id -u)" != 0 ] || ! make_link 2>/dev/null; then
		skip "no name space for a network here" 4
		return
	fi
	serve_at "$2" --ipaddr "$link_address" --port 10809
	in_space=(ip netns exec "$space")
	start_disk &&
		survives "$name" "$1" "$(survive_locator "$2" "$link_address" 10809)" links "$3"
	in_space=()
	remove_link
}
