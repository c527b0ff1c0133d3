#!/bin/bash
# ndio copy, format: whatever ends them, a file that looks whole is whole; one that is there stays as it
# is until something is written.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

key=$T/pass
mib=1048576
size=$((4 * mib))
head -c $((3 * mib)) /dev/urandom >"$T/src"
truncate -s $size "$T/src"

shorter() { # FILE: none, or one that is
	[ ! -e "$1" ] || [ "$(stat -c %s "$1")" -lt $size ]
}

# whole_or_not COMMAND...: that makes $T/new of $T/src. Either it succeeds and it is whole, or it says
# what is left, if anything is.
whole_or_not() {
	rm -f "$T/new"
	if "$@" >"$T/out" 2>&1; then
		cmp "$T/src" "$T/new"
	elif ! shorter "$T/new"; then
		echo "it looks whole"
		return 1
	elif [ -e "$T/new" ]; then
		grep -q "the file is cut to $(stat -c %s "$T/new") bytes" "$T/out"
	else
		[ -s "$T/out" ]
	fi
}

descriptors() { # COUNT COMMAND...
	(ulimit -n "$1" && exec "${@:2}")
}

# ---- early failures ----

for count in {5..24}; do
	ok "$count descriptors" whole_or_not descriptors "$count" "$ndio" copy "$T/src" "$T/new"
done
if [ -z "$NDIO_SANITIZE" ]; then
	memory() { # KIB COMMAND...
		(ulimit -v "$1" && exec "${@:2}")
	}
	for kib in 40000 50000 60000 70000 80000 90000 100000 150000 300000; do
		ok "$kib KiB of memory" whole_or_not memory $kib "$ndio" copy "$T/src" "$T/new"
	done
else
	skip "sanitizers take more memory" 9
fi
echo precious >"$T/new"
not descriptors 8 "$ndio" copy "$T/src" "$T/new" 2>/dev/null
is "what was there is there when nothing could begin" "$(cat "$T/new")" precious
ok "and goes when something is written" "$ndio" copy "$T/src" "$T/new"
ok "all of it" cmp "$T/src" "$T/new"
head -c $((2 * size)) /dev/urandom >"$T/new"
ok "a longer one, too" "$ndio" copy "$T/src" "$T/new"
ok "is as long as the source then" cmp "$T/src" "$T/new"
ln -s "$T/target" "$T/symlink"
ok "a symbolic link to nothing" "$ndio" copy "$T/src" "$T/symlink"
ok "has its file made" cmp "$T/src" "$T/target"

# ---- the middle, and SIGKILL ----

# Gives the first MiB, and the rest when $T/go is there.
cat >"$T/waits" <<SCRIPT
case \$1 in
get_size) echo $size ;;
pread)
	while [ \$4 -ge $mib ] && [ ! -e "$T/go" ]; do sleep 0.02; done
	dd if="$T/src" skip=\$4 count=\$3 iflag=count_bytes,skip_bytes status=none
	;;
thread_model) echo parallel ;;
*) exit 2 ;;
esac
SCRIPT
chmod +x "$T/waits"

# begin FILE: a copy, $copy, that has written something there and can't go on.
begin() {
	local deadline=$((SECONDS + 30))

	rm -f "$T/go"
	start_stock waits sh "$T/waits" || return
	"$ndio" copy "$(uri waits)" "$1" 2>"$T/err" &
	copy=$!
	until [ "$(dd if="$1" bs=1 skip=4096 count=1 status=none 2>/dev/null | wc -c)" = 1 ] &&
		cmp -n $((mib / 2)) "$1" "$T/src" >/dev/null 2>&1; do
		[ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
}

end() {
	touch "$T/go"
	kill -KILL "${server_pids[waits]}"
	wait "${server_pids[waits]}" 2>/dev/null
	unset "server_pids[waits]"
}

for what in new existing; do
	rm -f "$T/new"
	[ $what = new ] || echo precious >"$T/new"
	begin "$T/new"
	result $? "$what: a copy has begun"
	ok "$what: what isn't whole is shorter" shorter "$T/new"
	kill -KILL $copy
	wait $copy 2>/dev/null
	ok "$what: also after SIGKILL" shorter "$T/new"
	end
	rm -f "$T/new"
	begin "$T/new"
	kill -TERM $copy
	wait $copy
	ok "$what: and after SIGTERM" shorter "$T/new"
	like "$what: which is said" "$(cat "$T/err")" "the file is cut to $(stat -c %s "$T/new") bytes"
	end
done

begin "$T/new"
touch "$T/go"
wait $copy
is "one that may go on succeeds" $? 0
ok "and is whole" cmp "$T/src" "$T/new"
end

# ---- format ----

if [ -z "$NDIO_SANITIZE" ] && strace -o /dev/null true 2>/dev/null; then
	rm -f "$T/new"
	for when in 1 2 5; do
		strace -f -o /dev/null -e trace=fdatasync -e inject=fdatasync:signal=KILL:when=$when \
			"$ndio" format "${cheap[@]}" --size 32M --key-file "$key" "$T/new" >/dev/null 2>&1
		size=$((32 * mib))
		ok "format --size, killed at flush $when: no file of full length" shorter "$T/new"
		rm -f "$T/new"
	done
else
	skip "no strace here, or under a sanitizer" 3
fi
for type in luks1 luks2; do
	for megabytes in 3 8 9 17 40; do
		[ $type = luks1 ] || [ $megabytes -ge 17 ] || continue
		rm -f "$T/new"
		ok "format --type $type --size ${megabytes}M" "$ndio" format "${cheap[@]}" --type $type \
			--size ${megabytes}M --key-file "$key" "$T/new"
		is "has that size" "$(stat -c %s "$T/new")" $((megabytes * mib))
		ok "and opens" opens "$T/new" "$key"
	done
done
done_testing
