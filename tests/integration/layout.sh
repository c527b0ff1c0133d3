#!/bin/bash
# The tree keeps to its layout: includes point downwards, no headers in a circle, the engine's need
# neither libnbd nor TLS, a static function's name is its own, and it can be read in a day.
# tests/tools/check-layout.py has the table; here it is shown to see what breaks each of these.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "none of our programs is run here"

check() {
	python3 -B "$root/tests/tools/check-layout.py" "$@"
}

# broken NAME CHECK WORDS FILE LINE...: a tree with these lines at the end of FILE fails this check,
# with these words and no others. It is whole again afterwards.
broken() {
	local name=$1 check=$2 words=$3 file=$T/tree/$4 said status

	[ ! -e "$file" ] || cp "$file" "$T/before"
	mkdir -p "$(dirname "$file")"
	printf '%s\n' "${@:5}" >>"$file"
	said=$(check "$T/tree" "$check" 2>&1)
	status=$?
	is "$name: status" "$status" 1
	is "$name: what is said" "$said" "$words"
	rm "$file"
	[ ! -e "$T/before" ] || mv "$T/before" "$file"
}

ok "the tree keeps to its layout" check "$root"

mkdir "$T/tree"
(cd "$root" && find client common server -name '*.[ch]' -print0 | tar --null -cf - -T -) |
	tar -C "$T/tree" -xf -
ok "so does its copy" check "$T/tree"

broken "upwards" arrows \
	"common/base/error.c: includes common/nbd/nbd-uri.h: common/base -> common/nbd: upwards" \
	common/base/error.c '#include "nbd/nbd-uri.h"'
broken "sideways" arrows \
	"common/nbd/nbd-uri.h: includes common/file/target-file.h: common/nbd -> common/file: sideways" \
	common/nbd/nbd-uri.h '#  include "file/target-file.h"'
broken "sideways, in angles" arrows \
	"common/luks/luks.c: includes common/tls/psk.h: common/luks -> common/tls: sideways" \
	common/luks/luks.c '#include <tls/psk.h>'
broken "a target that knows LUKS" arrows \
	"common/file/target-file.c: includes common/luks/luks.h: common/file -> common/luks: no target knows LUKS" \
	common/file/target-file.c '#include "luks/luks.h"'
broken "an engine that knows what lies on disks" arrows \
	"common/engine/channel.c: includes common/integrity/layout.h: common/engine -> common/integrity: upwards" \
	common/engine/channel.c '#include "integrity/layout.h"'
broken "integrity that knows a kind of target" arrows \
	"common/integrity/layout.c: includes common/file/target-file.h: common/integrity -> common/file: upwards" \
	common/integrity/layout.c '#include "file/target-file.h"'
ends="the two ends share common/ alone"
broken "a server that knows the client" arrows \
	"server/plugin.c: includes client/terminal/progress.h: server -> client/terminal: $ends" \
	server/plugin.c '#include "../client/terminal/progress.h"'
broken "a client that knows the server" arrows \
	"client/copy/copy.c: includes server/host.h: client/copy -> server: $ends" \
	client/copy/copy.c '#include "../../server/host.h"'
broken "common/ that knows the client" arrows \
	"common/base/error.c: includes client/library/ndio.h: common/base -> client/library: upwards" \
	common/base/error.c '#include "../../client/library/ndio.h"'
broken "a room that nobody planned" arrows "common/attic/old.c: there is no room common/attic" \
	common/attic/old.c '#include "base/error.h"'

broken "a header that includes itself" circles \
	"common/base/align.h: a circle: common/base/align.h -> common/base/align.h" \
	common/base/align.h '#include "base/align.h"'
echo '#include "base/error.h"' >"$T/tree/common/base/one.h"
echo '#include "base/one.h"' >"$T/tree/common/base/two.h"
broken "a circle of three" circles \
	"common/base/error.h: a circle: common/base/error.h -> common/base/two.h -> common/base/one.h -> common/base/error.h" \
	common/base/error.h '#include "base/two.h"'
rm "$T/tree/common/base/"{one,two}.h

for header in libnbd.h openssl/ssl.h; do
	broken "an engine that needs $header" alone \
		"common/engine/odd.h: doesn't compile alone: <$header> is not for the engine's headers" \
		common/engine/odd.h "#include <$header>"
done
broken "a header that needs another first" alone \
	"common/engine/odd.h: doesn't compile alone: unknown type name 'what'" \
	common/engine/odd.h 'int odd(what *it);'

printf '%s\n' 'static void *odd_static(int a,' '                        int b)' '{' '}' \
	'int odd_public(void)' '{' '}' >"$T/tree/common/base/odd.c"
broken "a static's name twice" names \
	"server/serve/door.c: odd_static() is a function of common/base/odd.c, too" \
	server/serve/door.c '__attribute__((format(printf, 1, 2))) static' \
	'void odd_static(const char *fmt, ...)' '{' '}'
broken "a static with the name of a function for all" names \
	"common/base/odd.c: odd_public() is a function of client/copy/copy.c, too" \
	client/copy/copy.c 'static struct copy **odd_public(void)' '{' '}'
broken "a function for all with the name of a static" names \
	"common/base/odd.c: odd_static() is a function of client/copy/copy.h, too" \
	client/copy/copy.h 'int' 'odd_static(int a)' '{' '}'
ok "declared and called as often as one likes" check "$T/tree" names
rm "$T/tree/common/base/odd.c"

# fill LINES: as many lines of C, or none, in a file beside the engine's own.
fill() {
	yes '' | head -n "$(($1 > 0 ? $1 : 0))" >"$T/tree/common/engine/odd.c"
}

most=$(sed -n 's/^LINES = \([0-9]*\).*/\1/p' "$root/tests/tools/check-layout.py")
fill "$((most - $(cat "$T/tree"/common/engine/*.[ch] "$T/tree"/server/*.[ch] | wc -l)))"
ok "an engine of all the lines that it may have" check "$T/tree" size
broken "and one more" size \
	"common/engine/*.[ch] and server/*.[ch]: $((most + 1)) lines, and $most is all that a reader has time for" \
	common/engine/odd.c ''
done_testing
