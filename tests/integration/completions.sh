#!/bin/bash
# What bash, zsh and fish make of a word and a tab, in an interactive shell: names with blanks, colons
# and quotes, URIs, options and their values. And what the command makes of words that are no command.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

# The real one tells what can follow; what is run then tells its arguments.
mkdir "$T/bin" "$T/zsh" "$T/here" "$T/here/dir d"
cat >"$T/bin/ndio" <<SHELL
#!/bin/bash
[ "\$1" != complete ] || exec $ndio "\$@"
args=\$(printf '<%s>' "\$@")
printf '[%s]]\n' "[\$args"
SHELL
chmod 755 "$T/bin/ndio"
cp "$root/client/command/ndio.zsh-completion" "$T/zsh/_ndio"
cd "$T/here" || exit 1
touch "my file" "a:b c" "null:x" 'q$uo"te' "=even" plain "dir d/in side"
export PATH=$T/bin:$PATH HOME=$T XDG_CONFIG_HOME=$T XDG_DATA_HOME=$T

# What is typed before the tab, and the arguments that come of it.
lines=(
	"ndio inf" "<info>"
	"ndio copy my" "<copy><my file>"
	"ndio copy my\\ f" "<copy><my file>"
	"ndio copy 'my" "<copy><my file>"
	"ndio copy a:" "<copy><a:b c>"
	"ndio copy a:b\\ " "<copy><a:b c>"
	'ndio copy "a:b' "<copy><a:b c>"
	"ndio copy q" '<copy><q$uo"te>'
	"ndio copy dir" "<copy><dir d/>"
	"ndio copy dir\\ d/" "<copy><dir d/in side>"
	"ndio copy plain nul" "<copy><plain><null:>"
	"ndio copy plain null:x" "<copy><plain><null:x>"
	"ndio info nbds:" "<info><nbds://>"
	"ndio info nbds://" "<info><nbds://>"
	"ndio info 'nbd+unix:///?socket=pl" "<info><nbd+unix:///?socket=plain>"
	"ndio info --key-f" "<info><--key-f>"
	"ndio info --key-fi" "<info><--key-file>"
	"ndio info --key-file pl" "<info><--key-file><plain>"
	"ndio info --key-file=pl" "<info><--key-file=plain>"
	"ndio info --key-file =e" "<info><--key-file><=even>"
	"ndio format --type luks2 --lab" "<format><--type><luks2><--label>"
	"ndio format --type=luks" "<format><--type=luks>"
	"ndio key ch" "<key><change>"
	"ndio help ke" "<help><key>"
	"ndio list pl" "<list><pl>"
	"ndio serve --sock" "<serve><--socket>"
	"ndio serve --direct=o" "<serve><--direct=o>"
	"ndio serve --header pl" "<serve><--header><plain>"
	"ndio serve --listen host pl" "<serve><--listen><host><plain>"
)

types() { # SHELL COMMAND...
	local i got name=$1

	for ((i = 0; i < ${#lines[@]}; i += 2)); do
		printf '%s\t\n' "${lines[i]}"
	done | cat "$T/$name.setup" - >"$T/typed"
	mapfile -t got < <(timeout 60 python3 "$root/tests/tools/complete.py" "${@:2}" <"$T/typed")
	for ((i = 0; i < ${#lines[@]}; i += 2)); do
		# A shell may leave out the slash behind a folder, or quote what starts with =.
		is "$name: ${lines[i]}" "$(sed 's|dir d>|dir d/>|' <<<"${got[i / 2]-}")" "${lines[i + 1]}"
	done
}

# fish tells what it would put there.
fish_says() { # LINE
	# shellcheck disable=SC2016
	fish --private --no-config -c 'source $argv[1]; complete -C $argv[2]' \
		"$root/client/command/ndio.fish-completion" "$1" 2>&1 | cut -f 1 | sort | tr '\n' '|'
}

in_fish() {
	is "fish: a command" "$(fish_says "ndio inf")" "info|"
	is "fish: a blank" "$(fish_says "ndio copy my")" "my file|"
	is "fish: an escaped one" "$(fish_says "ndio copy my\\ f")" "my file|"
	is "fish: quotes" "$(fish_says "ndio copy 'my")" "my file|"
	is "fish: a colon" "$(fish_says "ndio copy a:")" "a:b c|"
	is "fish: a folder" "$(fish_says "ndio copy dir\\ d/")" "dir d/in side|"
	is "fish: null:" "$(fish_says "ndio copy plain nul")" "null:|null:x|"
	is "fish: a URI" "$(fish_says "ndio info nbds:")" "nbds://|"
	is "fish: a socket" "$(fish_says "ndio info nbd+unix:///?socket=pl")" \
		"nbd+unix:///?socket=plain|"
	is "fish: options" "$(fish_says "ndio info --key-f")" "--key-fd|--key-file|"
	is "fish: an option's file" "$(fish_says "ndio info --key-file=pl")" "--key-file=plain|"
	is "fish: its values" "$(fish_says "ndio format --type ")" "luks1|luks2|"
	is "fish: those of the server" "$(fish_says "ndio serve --direct ")" "auto|off|on|"
	is "fish: nothing" "$(fish_says "ndio list pl")" ""
	like "fish: what it is about" "$(fish --private --no-config -c 'source $argv[1]
		complete -C "ndio inf"' "$root/client/command/ndio.fish-completion")" $'^info\tshow what'
}

# Every option of every command that takes a name of a file, as the help has it.
all_options() {
	local command option missing=

	for command in $("$ndio" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
		for option in $("$ndio" "$command" --help | grep -oE -- '--[a-z][-a-z0-9]+' | sort -u); do
			[ "$command" = help ] ||
				"$ndio" complete "$command" "$option" | cut -f 1 | grep -qx -- "$option" ||
				missing="$missing $command $option"
		done
		for option in $("$ndio" "$command" --help | sed -nE 's/.*(--[-a-z]+)[ =](FILE|PATH|DIR|WHERE).*/\1/p'); do
			"$ndio" complete "$command" "$option" x | grep -qx ":files	" ||
				missing="$missing $option:files"
		done
	done
	is "every option is completed, and every file" "$missing" ""
}

meant() { # TYPED MEANT
	local said

	said=$("$ndio" "$1" 2>&1)
	is "ndio $1: the status" $? 2
	like "ndio $1: what was meant" "$said" "^ndio: \"$1\" is not a command: did you mean \"$2\"\?"
}

no_commands() {
	local said

	meant inof info
	meant cpoy copy
	meant formt format
	meant detatch detach
	meant hlep help
	meant keys key
	is "nothing like it" "$("$ndio" frobnicate 2>&1 | head -n 1)" \
		'ndio: "frobnicate" is not a command'
	ok "help help" "$ndio" help help
	is "help --help is the same" "$("$ndio" help --help)" "$("$ndio" help help)"
	like "which is about help" "$("$ndio" help help)" '^Usage: ndio help \[COMMAND\]'
	said=$("$ndio" 2>&1 >/dev/null)
	is "ndio alone: the status" $? 2
	like "ndio alone: the commands" "$said" "  format .*  info .*  copy .*which command\?"
}

printf '%s\n' ". $root/client/command/ndio.bash-completion" >"$T/bash.setup"
# shellcheck disable=SC2016
printf '%s\n' "fpath=($T/zsh \$fpath); autoload -Uz compinit; compinit -u -D; setopt no_equals" \
	>"$T/zsh.setup"
types bash bash --norc --noprofile -i
types zsh zsh -f -i
in_fish
all_options
no_commands
done_testing
