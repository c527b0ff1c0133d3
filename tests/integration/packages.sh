#!/bin/bash
# Where packages are missing, make installs them for who asked for that: by `make deps`, or with yes on
# the terminal; for root and in CI as well. Anyone else is told what to type, and nothing is installed.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "none of our programs is run here"

mkdir "$T/src" "$T/bin"
tar -C "$root" --exclude=./.git --exclude=./build -cf - . | tar -C "$T/src" -xf -

# fake NAME: with the script on stdin.
fake() {
	{
		echo '#!/bin/sh'
		cat
	} >"$T/bin/$1"
	chmod 755 "$T/bin/$1"
}

# One library is missing until apt-get installs something.
fake pkg-config <<EOT
[ "\$*" != "--exists libnbd" ] || [ -e $T/installed ] || exit 1
exec $(command -v pkg-config) "\$@"
EOT
fake apt-get <<EOT
echo "\$SUDO\$*" >>$T/calls
case "\$*" in *install*) : >$T/installed ;; esac
EOT
fake sudo <<'EOT'
SUDO="sudo: " exec "$@"
EOT
fake id <<'EOT'
echo "$FAKE_UID"
EOT

# makes USER CI TARGET...: what is missing is installed before make knows what to do, even with -n.
makes() {
	(cd "$T/src" && exec env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS FAKE_UID="$1" CI="$2" \
		PATH="$T/bin:$PATH" make -j2 "${@:3}" CC="${CC:-gcc}")
}

# alone COMMAND...: without a terminal.
alone() {
	setsid --wait "$@" </dev/null
}

anew() {
	rm -rf "$T/installed" "$T/calls" "$T/src/build"
}

called() {
	cat "$T/calls" 2>/dev/null
}

# installs NAME WHO: apt-get was called for the missing package, once, by WHO.
installs() {
	is "$1" "$(called | sed -E 's/-q .* (update|install)\>.*/\1/')" "$2update"$'\n'"$2install"
	like "$1: what is missing" "$(called)" ' install .* libnbd-dev'
}
export -f makes
export T

user=1000
asks='ndio needs.* libnbd.*Install.* libnbd-dev.*\? \[y/N\]'

for yes in y YES; do
	anew
	said=$(terminal "Install => $yes" bash -c "makes $user '' -n check" 2>&1)
	is "a user who says $yes: goes on" $? 0
	is "a user who says $yes: was asked once" "$(grep -cE "$asks" <<<"$said")" 1
	installs "a user who says $yes: installs, by sudo" 'sudo: '
done
for no in n "" yesterday; do
	anew
	said=$(terminal "Install => $no" bash -c "makes $user '' -n check" 2>&1)
	is "a user who says '$no': fails" $? 2
	like "a user who says '$no': was asked" "$said" "$asks"
	like "a user who says '$no': is told what to type" "$said" 'make deps installs.* libnbd-dev'
	is "a user who says '$no': installs nothing" "$(called)" ""
done

for target in check demo; do
	anew
	said=$(alone bash -c "makes $user '' -n $target" 2>&1 >/dev/null)
	is "make $target without a terminal: fails" $? 2
	like "make $target without a terminal: the line to type" "$said" \
		'ndio needs.* libnbd.*: make deps installs.* libnbd-dev'
	is "make $target without a terminal: said once" "$(grep -c installs <<<"$said")" 1
	is "make $target without a terminal: installs nothing" "$(called)" ""
done
anew
like "make check-vm: has more to install" "$(alone bash -c "makes $user '' -n check-vm" 2>&1)" \
	': make vm-deps installs.* libnbd-dev'

anew
ok "in CI: goes on" alone bash -c "makes $user true -n check"
installs "in CI: installs, by sudo" 'sudo: '
anew
ok "root: goes on" alone bash -c "makes 0 '' -n check"
installs "root: installs, without sudo" ''
anew
ok "make deps: goes on" alone bash -c "makes $user '' deps"
installs "make deps: installs, by sudo" 'sudo: '
done_testing
