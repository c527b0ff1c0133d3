#!/bin/bash
# The library keeps what programs of the last release were built with. Its calls are those of ndio.h,
# each named in libndio.map, whose versions stay; and abigail's description of that release says the
# rest, by tests/tools/check-abi.py, which is shown to see what breaks programs and to let pass what
# doesn't.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "a library with a sanitizer isn't released"
readelf -S "$NDIO_BUILD/libndio.so.0" | grep -q debug_info || skip_all "built without -g"
[ "$(uname -m)" = x86_64 ] || skip_all "the description is of x86_64"

library=$root/client/library
abi=$(echo "$library"/libndio-*.abi)

check() { # LIBRARY HEADER
	python3 -B "$root/tests/tools/check-abi.py" "$1" "$2" "$abi"
}

declared=$(grep -v typedef "$library/ndio.h" | grep -oE '\bndio_[a-z_]+\(' | tr -d '(' | sort -u)
named=$(awk '/^NDIO_/ { v = $1 } /ndio_.*;/ { sub(";", "@@" v); print $1 }' "$library/libndio.map" | sort)
exported=$(nm -D --defined-only "$NDIO_BUILD/libndio.so.0" | grep -oE '\bndio_.*' | sort)
is "libndio.map names what ndio.h declares" "$(sed 's/@@.*//' <<<"$named")" "$declared"
is "the library has it by these names and versions" "$exported" "$named"
is "the last release is described, and no other" "$(ls "$library" | grep -c '\.abi$')" 1
ok "programs of the last release run with this library" check "$NDIO_BUILD/libndio.so.0" "$library/ndio.h"

# make_like NAME SED: a library in $T/NAME, without a thought in it, whose ndio.h was changed by SED. The
# map follows.
make_like() {
	local to=$T/$1

	mkdir "$to"
	sed -E "$2" "$library/ndio.h" >"$to/ndio.h"
	sed -E "$2" "$library/libndio.map" >"$to/map"
	python3 - "$to/ndio.h" >"$to/library.c" <<'PYTHON'
import re, sys
text = re.sub(r"/\*.*?\*/", " ", open(sys.argv[1]).read(), flags=re.S)
print('#include "ndio.h"')
for call in re.findall(r"^(?!typedef)((?:[\w ]|\*)+\bndio_\w+\([^{};]*?\));", text, flags=re.M):
    print(call, "{ __builtin_trap(); }")
PYTHON
	"${CC:-gcc}" -g -shared -fPIC -fvisibility=hidden -w -Wl,-soname,libndio.so.0 \
		-Wl,--version-script="$to/map" -o "$to/library.so" "$to/library.c"
}

# breaks NAME WHAT SED WORDS
breaks() {
	local said status

	make_like "$1" "$3"
	said=$(check "$T/$1/library.so" "$T/$1/ndio.h" 2>&1)
	status=$?
	is "$2: breaks programs" "$status" 1
	like "$2: what is said" "$said" "$4"
}

# passes NAME WHAT SED
passes() {
	ok "$2: is made" make_like "$1" "$3"
	ok "$2: breaks no program" check "$T/$1/library.so" "$T/$1/ndio.h"
}

passes same "the same calls" ''
passes call "one call more" 's/^(int )?(\t*)ndio_flush(\(.*|;)$/&\n\1\2ndio_more\3/'
passes member "one member more at the end" 's/^\tuint64_t errors;/&\n\tuint64_t more;/'
breaks gone "a call that is gone" '/^(int |\t\t)ndio_flush(\(|;)/d' "1 Removed.*ndio_flush"
breaks version "another version" 's/^NDIO_0.1/NDIO_0.2/' "ndio_flush@@NDIO_0.1"
breaks argument "another argument" '/ndio_cache/s/uint64_t offset/uint32_t offset/' "ndio_cache.*parameter 2"
breaks between "a member in between" 's/^\tuint64_t in_flight;/\tuint64_t more;\n&/' \
	"struct ndio_stats.*in_flight' offset changed"
breaks order "another order" \
	'/^\tuint64_t in_flight;/d; s/^\tuint64_t errors;/&\n\tuint64_t in_flight, more;/' \
	"struct ndio_stats.*in_flight' offset changed"
breaks longer "a longer name" 's/^\tchar cipher\[64\]/\tchar cipher[80]/' "struct ndio_info.*cipher"
# Its size is the same, so that struct_size doesn't tell who has it.
breaks padding "a member where padding was" \
	's/^\tunsigned answer_timeout;/\tunsigned answer_timeout, more;/' "struct ndio_options"
breaks event "a longer event, which has no struct_size" 's/^\tint error; .*/&\n\tuint64_t more;/' \
	"struct ndio_event"
breaks enum "a number that means something else" 's/^\tNDIO_CLOSE_WAIT,/\tNDIO_CLOSE_NEVER,\n&/' NDIO_CLOSE_WAIT
done_testing
