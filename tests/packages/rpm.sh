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
done_testing
