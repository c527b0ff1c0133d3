#!/bin/bash
# The spec in the tarball is one that rpm understands, and RPM packages are built from the tarball alone,
# with all that is listed in them and nothing that isn't.
. "$(dirname "$0")/../lib/lib.sh"

command -v rpmbuild >/dev/null || skip_all "no rpmbuild here"

version=$(cat "$root/VERSION")
tarball=$root/build/ndio-$version.tar.gz
top=$T/rpm

ok "the tarball has a spec" tar -C "$T" -xzf "$tarball" --strip-components=1 "ndio-$version/ndio.spec"
ok "rpm understands it" rpmspec -P "$T/ndio.spec"
is "its packages" "$(rpmspec -q --qf '%{name} %{version}\n' "$T/ndio.spec" | sort)" \
	"$(printf "%s $version\n" libndio libndio-devel nbdkit-ndio-plugin ndio python3-ndio)"
# Debian's rpm knows nothing of what apt has installed.
ok "it builds" rpmbuild -tb --nodeps --define "_topdir $top" --define "_smp_mflags -j$(nproc)" "$tarball"
is "into packages" "$(cd "$top/RPMS" && find . -name '*.rpm' -printf '%f\n' | grep -v debug | sed "s/-$version.*//" | sort)" \
	"$(printf '%s\n' libndio libndio-devel nbdkit-ndio-plugin ndio python3-ndio)"

# Removed are only disks that aren't attached, and not before what the units run was stopped. What tells of
# either is in $T/bin.
mkdir "$T/bin"
printf '%s\n' '#!/bin/sh' "echo \"\$*\" >>$T/told" >"$T/bin/systemctl"
printf '%s\n' '#!/bin/sh' "cat $T/attached" >"$T/bin/ndio"
chmod 755 "$T/bin/"*

# before_removal PACKAGE LEFT: what RPM runs, with so many versions of it left afterwards.
before_removal() {
	rpm -qp --qf '%{PREUN}' "$top"/RPMS/*/"$1-$version"-*.rpm >"$T/preun" &&
		: >"$T/told" && PATH=$T/bin:$PATH sh "$T/preun" "$2"
}

stopped() {
	sed -n 's/^stop //p' "$T/told" | tr ' ' '\n' | sort
}

echo /dev/nbd0 >"$T/attached"
ok "a disk is attached: ndio stays" not before_removal ndio 0
is "and serves" "$(stopped)" "ndio-attach@*.service"
ok "an upgrade goes on" before_removal ndio 1
is "and stops nothing" "$(stopped)" ""
: >"$T/attached"
ok "no disk is: ndio goes" before_removal ndio 0
is "after its units" "$(stopped)" "$(printf '%s\n' ndio-attach@\*.service ndio-serve.service)"
ok "the plugin goes" before_removal nbdkit-ndio-plugin 0
is "after its" "$(stopped)" "$(printf '%s\n' ndio-export@\*.service ndio-export@\*.socket)"
is "all pages of doc/ are there" "$(rpm -qpl "$top"/RPMS/*/ndio-"$version"-*.rpm | sed -n 's,.*/doc/ndio[^/]*/,,p' |
	grep -vE '^(README|CHANGELOG|SECURITY)' | sort)" "$(cd "$root/doc" && printf '%s\n' *.md | sort)"
done_testing
