#!/bin/bash
# The Debian packages that `make deb` has made are installed in a bare Debian 12 of their own, do their
# work there (debian/tests), and are removed without a trace. What else is in there is kept as
# build/packages/bookworm.tar, until `make clean`.
. "$(dirname "$0")/../lib/lib.sh"

. "$root/tests/lib/debian.sh"

# What debian/tests need, but for packages of ours.
needs=$(sed -n 's/^Depends: //p' "$root/debian/tests/control" | tr -d ' ' | tr , '\n' | sort -u |
	grep -vxF "$packages" | paste -sd,)

# What is there, with its kind and mode, and what any file's bytes are; but for what dpkg and apt keep
# about all packages, logs, and what Python makes anew by itself.
list_all() {
	local left_out=(-path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./debs -o
		-path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o
		-name __pycache__)

	(cd "$debian" && {
		find . -xdev \( "${left_out[@]}" \) -prune -o -printf '%p %y %m %l\n'
		find . -xdev \( "${left_out[@]}" \) -prune -o -type f -print0 | xargs -0 sha256sum |
			sed 's/^\([^ ]*\) *\(.*\)/\2 \1/'
	} | sort)
}

# test_of NAME: one of debian/tests, as autopkgtest runs it.
test_of() {
	rm -rf "$debian/tmp/test"
	mkdir -p "$debian/tmp/test"
	cp "$root/debian/tests/$1" "$debian/tmp/$1"
	in_debian env -C /tmp/test AUTOPKGTEST_TMP=/tmp/test "/tmp/$1"
}

# What users find: each page of man/ and doc/, the completions of three shells, the units; some compressed.
for_users() {
	local file

	for file in "$root"/man/*.pod; do
		file=$(basename "$file" .pod)
		echo "./usr/share/man/man${file##*.}/$file"
	done
	for file in "$root"/doc/*.md; do
		echo "./usr/share/doc/ndio/${file##*/}"
	done
	printf './usr/share/%s\n' bash-completion/completions/ndio zsh/vendor-completions/_ndio \
		fish/vendor_completions.d/ndio.fish
	units | sed 's,^,./usr/lib/systemd/system/,'
}

units() {
	(cd "$root" && find client server -name '*.in' -printf '%f\n' | sed 's/\.in$//')
}

# not_found: those of its input that aren't there.
not_found() {
	local file

	while read -r file; do
		grep -qE "^$file(\.gz)? f " "$T/with" || echo "$file"
	done
}

# with_systemd ARG...: apt-get, where one runs that only writes down what it is told; and of disks that are
# attached ndio knows by what stands in $T/attached, if that is there.
with_systemd() {
	rm -rf "$debian/tmp/fake"
	mkdir -p "$debian/tmp/fake" "$debian/run/systemd/system"
	printf '%s\n' '#!/bin/sh' 'echo "$*" >>/tmp/told' >"$debian/tmp/fake/systemctl"
	[ ! -e "$T/attached" ] || printf '%s\n' '#!/bin/sh' "echo $(cat "$T/attached")" >"$debian/tmp/fake/ndio"
	chmod 755 "$debian/tmp/fake/"*
	: >"$debian/tmp/told"
	in_debian apt-get -q -y -o DPkg::Path=/tmp/fake:/usr/sbin:/usr/bin:/sbin:/bin "$@"
	local status=$?
	rmdir -p --ignore-fail-on-non-empty "$debian/run/systemd/system"
	return $status
}

ok "the packages are there" ls "$debs"/*.deb || exit 1
is "all of them" "$(for package in $packages; do ls "$debs/${package}_"*.deb >/dev/null || echo "$package"; done)" ""
is "lintian has no error and no warning left" "$(grep '^[EW]:' "$debs/lintian.log")" ""
ok "a bare Debian 12 is made" make_debian bookworm "apt-utils,procps,$needs" || exit 1
ok "what the packages need is installed" install_depends || exit 1
list_all >"$T/before"
ok "the packages are installed" install_ours || exit 1
list_all >"$T/with"
is "and there" "$(grep -cE '^\./usr/(bin/ndio|libexec/ndio/ndio-serve) f ' "$T/with")" 2
is "all that users look for, too" "$(for_users | not_found)" ""

for name in $(sed -n 's/^Tests: //p' "$root/debian/tests/control"); do
	test_of "$name" >"$T/test.out" 2>&1
	status=$?
	if [ $status = 77 ]; then
		skip "$name: $(tail -n 1 "$T/test.out" | sed 's/^+* *//')"
	else
		is "debian/tests/$name" $status 0 || diag "$(tail -n 40 "$T/test.out")"
	fi
done

# What an administrator enables goes too; what one writes stays.
in_debian sh -c 'cd /etc/systemd/system &&
	mkdir -p remote-fs.target.wants sockets.target.wants multi-user.target.wants &&
	ln -s /lib/systemd/system/ndio-serve.service multi-user.target.wants/ndio-serve.service &&
	ln -s /lib/systemd/system/ndio-attach@.service remote-fs.target.wants/ndio-attach@nbd0.service &&
	ln -s /lib/systemd/system/ndio-export@.socket sockets.target.wants/ndio-export@10809.socket'
echo /dev/nbd0 >"$T/attached"
with_systemd remove ndio >"$T/remove.out" 2>&1
is "with a disk attached ndio isn't removed" $? 100 || diag "$(tail -n 20 "$T/remove.out")"
is "but stays, whole" "$(in_debian dpkg-query -W -f '${Status}' ndio)" "install ok installed"
ok "and serves" not grep -q 'stop.* ndio-serve' "$debian/tmp/told"
rm "$T/attached"
# shellcheck disable=SC2086
ok "the packages are purged" with_systemd purge $packages
is "all that their units run was stopped" "$(sed -n 's/^stop //p' "$debian/tmp/told" | tr ' ' '\n' | sort)" \
	"$(units | sed 's/@/@*/' | sort)"
rmdir "$debian/etc/systemd/system/"{remote-fs,sockets,multi-user}.target.wants 2>/dev/null
list_all >"$T/after"
is "nothing of them is left, and nothing else was touched" "$(diff "$T/before" "$T/after")" ""
# shellcheck disable=SC2086
is "dpkg knows none of them" "$(in_debian dpkg-query -W -f '${Package} ${Status}\n' $packages 2>/dev/null)" ""
done_testing
