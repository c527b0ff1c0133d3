#!/bin/bash
# Writes that meet in the same blocks lose nobody's bytes, whatever the format.
. "$(dirname "$0")/../lib/lib.sh"

overlap=$NDIO_BUILD/tests/clients/overlap
# More threads than nbdkit has for a connection, and than there are channels for what is large.
seconds=1.6 threads=24
server_options=()
case $NDIO_SANITIZE in
'') ;;
*thread*) seconds=4 threads=18 server_options=(--threads 2) ;;
*) seconds=4 server_options=(--threads 4) ;;
esac

# overlapping NAME FILE PLUGIN-OPTION...
overlapping() {
	local name=$1 file=$2

	shift 2
	if start_door disk "${server_options[@]}" "$file" "$@"; then
		ok "$name: every byte is its writer's" \
			timeout 120 "$overlap" "$(uri disk)" $threads $seconds
		ok "$name: the server ends cleanly" stop_server disk
	else
		result 1 "$name: the server starts"
	fi
	rm -f "$file"
}

size=80M
pass=passphrase=+$T/pass

truncate -s $size "$T/raw"
overlapping "raw" "$T/raw"

truncate -s $size "$T/raw"
overlapping "raw, direct=off" "$T/raw" direct=off

make_luks2 "$T/luks" $size --sector-size 4096 --cipher aes-xts-plain64
overlapping "LUKS2, sectors of 4096" "$T/luks" "$pass" discard=on

make_luks2 "$T/luks" $size --sector-size 512 --cipher aes-xts-plain64
overlapping "LUKS2, sectors of 512" "$T/luks" "$pass"

make_luks2 "$T/luks" $size --sector-size 4096 --cipher aes-cbc-plain64 --key-size 256
overlapping "LUKS2, CBC, sectors of 4096" "$T/luks" "$pass"

make_luks1 "$T/luks" $size --cipher aes-cbc-essiv:sha256 --key-size 256
overlapping "LUKS1, CBC" "$T/luks" "$pass"

make_luks2 "$T/luks" $size --sector-size 4096 --cipher aes-xts-plain64
overlapping "LUKS2, direct=off" "$T/luks" "$pass" direct=off

# Through a journal for which there is little memory.
ok "a volume with integrity is made" "$NDIO_BUILD/ndio" format --key-file "$T/pass" --pbkdf pbkdf2 \
	--pbkdf-force-iterations 1000 --size $size --integrity aead "$T/luks"
overlapping "LUKS2, integrity" "$T/luks" "$pass" integrity-cache=1M

done_testing
