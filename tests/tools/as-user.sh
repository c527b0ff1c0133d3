#!/bin/bash
# as-user.sh COMMAND...: runs it as who isn't root and may lock 8 MiB, as Debian lets one. Root becomes
# nobody, in a copy of the tree without what is built, which goes away with it.
set -eu
ulimit -l 8192
[ "$(id -u)" = 0 ] || exec "$@"
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar -C "$(dirname "$0")/../.." --exclude=./.git --exclude=./build -cf - . | tar -C "$copy" -xf -
chown -R nobody: "$copy"
cd "$copy"
setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups --inh-caps=-all \
	env -u XDG_RUNTIME_DIR HOME="$copy" USER=nobody LOGNAME=nobody "$@"
