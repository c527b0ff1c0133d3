#!/bin/bash
# The library's asynchronous requests against a model in memory, on files and on servers that we
# didn't write: every byte is right, and every request completes once, with the right error also
# when the server fails some.
. "$(dirname "$0")/../lib/lib.sh"

. "$root/tests/lib/command.sh"

clients=$NDIO_BUILD/tests/clients
key=$T/pass
requests=200
case $NDIO_SANITIZE in
'') ;;
*thread*) requests=100 ;;
*) requests=100 ;;
esac

# model NAME LOCATOR OPTION...
model() {
	local name=$1 locator=$2

	shift 2
	ok "$name" timeout 100 "$clients/ndio-model" -n $requests -s $RANDOM "$@" "$locator"
}

# on_server NAME OPTION...: on the server named disk, which then ends.
on_server() {
	model "$1" "$(uri disk)" "${@:2}"
	ok "$1: the server ends cleanly" stop_server disk
}

# What a file's LUKS volume holds, as qemu sees it, is what the model says.
same_for_qemu() { # FILE MODEL
	qemu-img convert --image-opts --object "secret,id=key,file=$key" -O raw \
		"driver=luks,key-secret=key,file.filename=$1" "$T/plain" &&
		cmp -n "$(stat -c %s "$2")" "$T/plain" "$2"
}

on_files() {
	truncate -s 4M "$T/raw"
	model "raw file" "$T/raw" -o "$T/model"
	ok "raw file: what it holds" cmp "$T/raw" "$T/model"
	make_luks2 "$T/luks" 24M --sector-size 4096
	model "LUKS2 file" "$T/luks" -k "$key" -d
	make_luks2 "$T/luks" 24M --sector-size 512
	model "LUKS2 file, sectors of 512" "$T/luks" -k "$key" -o "$T/model"
	make_luks1 "$T/luks" 24M
	model "LUKS1 file" "$T/luks" -k "$key" -o "$T/model"
	ok "LUKS1 file: what it holds, by qemu" same_for_qemu "$T/luks" "$T/model"
}

on_nbdkit() {
	start_stock disk memory 8M && on_server "nbdkit memory"

	make_luks2 "$T/luks" 24M --sector-size 4096
	start_stock disk file "$T/luks" && on_server "nbdkit file, with a key" -k "$key" -d -c 3

	make_luks1 "$T/luks" 24M
	start_stock disk --filter=blocksize-policy file "$T/luks" blocksize-error-policy=error \
		blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=64k &&
		on_server "nbdkit blocksize-policy, with a key" -k "$key" -o "$T/model"
	ok "LUKS1 by NBD: what it holds, by qemu" same_for_qemu "$T/luks" "$T/model"

	start_stock disk --filter=blocksize-policy memory 8M blocksize-error-policy=error \
		blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=64k &&
		on_server "nbdkit blocksize-policy"

	make_luks2 "$T/luks" 24M --sector-size 512
	start_stock disk --filter=delay file "$T/luks" rdelay=1ms wdelay=1ms &&
		on_server "nbdkit delay, with a key" -k "$key"

	start_stock disk --filter=noextents --filter=nozero --filter=nocache memory 8M &&
		on_server "nbdkit without zero, extents, cache"
}

# holds NAME [OPTION...]: what the volume holds, as it is opened anew, is what the model says.
holds() {
	ok "$1: what it holds" sh -c '"$@" >"$0" && cmp -n "$(stat -c %s "$0.model")" "$0" "$0.model"' \
		"$T/held" "$ndio" copy "${@:2}" --src-key-file "$key" "$T/luks" -
}

# Their journals are small, and go round many times.
on_integrity() {
	local kind

	for kind in aead "aead --integrity-no-journal" hmac-sha256; do
		rm -f "$T/luks" "$T/trust"
		# shellcheck disable=SC2086
		ok "$kind: made" "$ndio" format --size 32M --key-file "$key" "${cheap[@]}" --integrity $kind "$T/luks"
		model "$kind" "$T/luks" -k "$key" -o "$T/held.model"
		holds "$kind"
		ok "$kind: trusted" "$ndio" trust --trust "$T/trust" --key-file "$key" "$T/luks"
		model "$kind, trusted" "$T/luks" -k "$key" -T "$T/trust" -o "$T/held.model"
		holds "$kind, trusted" --src-trust "$T/trust"
		start_stock disk file "$T/luks" &&
			on_server "$kind, trusted, by NBD" -k "$key" -T "$T/trust" -c 3 -o "$T/held.model"
		holds "$kind, trusted, by NBD" --src-trust "$T/trust"
	done
}

on_failing_server() {
	make_luks2 "$T/luks" 24M --sector-size 4096
	start_stock disk --filter=error file "$T/luks" error=EIO error-rate=10% \
		error-file="$T/inject" &&
		on_server "nbdkit error, with a key" -k "$key" -e "$T/inject"
	start_stock disk --filter=error memory 8M error=EIO error-rate=10% \
		error-file="$T/inject" && on_server "nbdkit error" -e "$T/inject"
}

on_nbd_server() { # NAME LINE...
	start_nbd_server disk "$T/luks" "${@:2}" && model "$1" "$(uri disk disk)" -k "$key"
	end_nbd_server disk
}

on_others() {
	truncate -s 8M "$T/raw"
	start_qemu_nbd disk --format raw "$T/raw" && on_server "qemu-nbd" -o "$T/model"
	ok "qemu-nbd: what it holds" cmp -n "$(stat -c %s "$T/model")" "$T/raw" "$T/model"
	make_luks2 "$T/luks" 24M --sector-size 4096
	start_qemu_nbd disk --format raw --discard=unmap "$T/luks" &&
		on_server "qemu-nbd, with a key" -k "$key" -d

	if command -v nbd-server >/dev/null; then
		on_nbd_server "nbd-server, with a key" 'flush = true' 'fua = true' 'trim = true'
		on_nbd_server "nbd-server without FUA, with a key" 'flush = true'
		on_nbd_server "nbd-server without flush, with a key"
	else
		skip "no nbd-server here" 3
	fi

	start_nbdkit disk "$NDIO_PLUGIN" "$T/luks" && on_server "our plugin, with a key" -k "$key"
}

on_files
on_nbdkit
on_integrity
on_failing_server
on_others
done_testing
