#!/bin/bash
# Small requests are plain system calls; large ones go through a ring.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

case $(stat -f -c %T "$NDIO_BUILD") in
tmpfs | ramfs) skip_all "no direct I/O in $NDIO_BUILD" ;;
esac
disk=$(mktemp "$NDIO_BUILD/small.XXXXXX")
trap 'rm -f "$disk"; clean_up' EXIT
COUNT=100

# Calls like pread(2) (r) and pwrite(2) (w) that the server has made so far. What a ring does
# isn't among them, nor is send(2); nbdkit has one read(2) a request.
calls() { # r|w
	sed -n "s/^sysc$1: //p" "/proc/$(cat "$T/disk.pid")/io"
}

# ask METHOD ARG LEN: COUNT requests, one behind the other.
ask() {
	py disk "
for i in range($COUNT):
    h.$1($2, i * $3)"
}

# each r|w ASK...: how many such calls it makes a request.
each() {
	local before

	before=$(calls "$1")
	ask "${@:2}"
	echo $((($(calls "$1") - before) / COUNT))
}

look() { # NAME LEN CALLS
	is "each write of $1 is $3 pwrite" "$(each w pwrite "data($2)" "$2")" "$3"
	is "and each read $3 pread" "$(each r pread "$2" "$2")" $((1 + $3))
}

has_io_uring || skip_all "io_uring is refused here"
truncate -s 64M "$disk"
start_nbdkit disk "$NDIO_PLUGIN" "$disk"
look "4 KiB" 4096 1
look "16 KiB" 16384 1
look "256 KiB" 262144 0
# With the rest of its block, which is read first.
is "a part of a block is 1 pwrite" "$(each w pwrite "data(128)" 128)" 1
stop_server disk

done_testing
