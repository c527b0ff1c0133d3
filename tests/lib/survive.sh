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

say() { # NAME LINE
	echo "$2" >&"${say_fd[$1]}"
}

# hear NAME REGEX: reads lines until one matches; others stay in $T/NAME.said.
hear() {
	local line

	while IFS= read -r -t "$survive_limit" -u "${hear_fd[$1]}" line; do
		echo "$line" >>"$T/$1.said"
		[[ ! $line =~ $2 ]] || return 0
	done
	echo "$1 doesn't say '$2': $(tail -n 5 "$T/$1.said" "$T/$1.err" 2>&1)"
	return 1
}

ask() { # NAME LINE
	say "$1" "$2" && hear "$1" '^ok'
}

# end_talker NAME: all that it still says goes to $T/NAME.said. Its status.
end_talker() {
	local name=$1 in=${say_fd[$1]} out=${hear_fd[$1]} status

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

# What is preloaded into the server: so what it doesn't flush is forgotten, and it can be stalled.
forgets=$volatile

# start_disk [PRELOAD]: $serve is a command that has --foreground and --pidfile "$T/disk.pid" among
# its arguments.
start_disk() {
	start_server disk env LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }${1-$forgets}" \
		VOLATILE_DISK="$T/disk" VOLATILE_DISK_STALL="$T/stall" "${serve[@]}"
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

# start_registers ARG...
start_registers() {
	rm -f "$T/registers.said"
	start_talker registers "$registers" --state "$T/state" "$@" && hear registers '^begun'
}

mark() { # NAME
	say registers "mark $1"
}

up() {
	say registers up
}

# goes_on [OPERATIONS=200]: so many operations begin and end, and all before them.
goes_on() {
	say registers "wait ${1:-200}" && hear registers '^ready'
}

# end_registers: 0 if there was no violation and no error.
end_registers() {
	say registers end
	end_talker registers
}

# value NAME: of those that registers printed at the end.
value() {
	sed -n "s/^violations=/ &/; s/.*[[:space:]]$1=\([0-9]*\).*/\1/p" "$T/registers.said" | tail -n 1
}

# ---- faults ----

# Killed, and what it hadn't flushed is forgotten, or not: that depends on how it was started, which
# the next one is the other way.
next_preload=
fault_kill() {
	local name=kill

	[ -n "$next_preload" ] || name=forget
	mark $name
	kill_disk
	start_disk "$next_preload" || return
	if [ -n "$next_preload" ]; then
		next_preload=
	else
		next_preload=$forgets
	fi
	up
	goes_on
}

# Every time with what wasn't flushed.
fault_forget() {
	mark forget
	kill_disk
	start_disk || return
	up
	goes_on
}

# fault_stop SECONDS
fault_stop() {
	mark stop
	kill -STOP "${server_pids[disk]}"
	sleep "$1"
	kill -CONT "${server_pids[disk]}"
	up
	goes_on
}

# What old connections have sent comes when newer ones have long done their work.
fault_late() {
	mark late
	ask network 'hold 4096' && ask network part || return
	up
	goes_on && ask network release && goes_on
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

# again COUNT COMMAND...: a fault, so many times. What the last one said is shown if it fails.
again() {
	local count=$1 i

	shift
	for ((i = 0; i < count; i++)); do
		"$@" || {
			echo "at round $i of $count: $*"
			return 1
		}
	done
}
