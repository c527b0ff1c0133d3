# The commands of a document in doc/, for tests: `. tests/lib/document.sh` after lib.sh, with $document its
# path. There, a line "<!-- run: STEP -->" stands before the indented blocks of commands that are this
# step, up to the next heading; "<!-- run: -->" before those that no test runs.
# shellcheck shell=bash disable=SC2154

# document_steps: the names of all, in their order.
document_steps() {
	sed -n 's/^<!-- run: \([a-z0-9-]\+\) -->$/\1/p' "$document"
}

# document_commands STEP: word for word, each on one line.
document_commands() {
	awk -v step="$1" '
		/^<!-- run: / { inside = $3 == step; next }
		/^#/ { inside = 0 }
		inside && /^    / { print substr($0, 5) }' "$document" |
		sed -e :a -e '/\\$/ { N; s/ *\\\n */ /; ta }'
}

# document_loose: commands that stand under no such line.
document_loose() {
	awk '/^<!-- run: / { inside = 1; next }
		/^#/ { inside = 0 }
		/^    / && !inside' "$document"
}

# run_document STEP [SED-SCRIPT]: in this shell, up to the first command that fails, with what the script
# replaces.
run_document() {
	run_lines "$1" "$(document_commands "$1" | sed -e "${2:-}")"
}
