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

ok "the packages are there" ls "$debs"/*.deb || exit 1
is "all of them" "$(for package in $packages; do ls "$debs/${package}_"*.deb >/dev/null || echo "$package"; done)" ""
is "lintian has no error and no warning left" "$(grep '^[EW]:' "$debs/lintian.log")" ""
ok "a bare Debian 12 is made" make_debian bookworm "apt-utils,procps,$needs" || exit 1
ok "what the packages need is installed" install_depends || exit 1
list_all >"$T/before"
ok "the packages are installed" install_ours || exit 1
list_all >"$T/with"
is "and there" "$(grep -cE '^\./usr/(bin/ndio|libexec/ndio/ndio-serve) f ' "$T/with")" 2

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
in_debian sh -c 'cd /etc/systemd/system && mkdir -p remote-fs.target.wants sockets.target.wants &&
	ln -s /lib/systemd/system/ndio-attach@.service remote-fs.target.wants/ndio-attach@nbd0.service &&
	ln -s /lib/systemd/system/ndio-export@.socket sockets.target.wants/ndio-export@10809.socket'
# shellcheck disable=SC2086
ok "the packages are purged" in_debian apt-get -q -y purge $packages
rmdir "$debian/etc/systemd/system/"{remote-fs,sockets}.target.wants 2>/dev/null
list_all >"$T/after"
is "nothing of them is left, and nothing else was touched" "$(diff "$T/before" "$T/after")" ""
# shellcheck disable=SC2086
is "dpkg knows none of them" "$(in_debian dpkg-query -W -f '${Package} ${Status}\n' $packages 2>/dev/null)" ""
done_testing
