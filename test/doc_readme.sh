#!/bin/sh
# test/doc_readme.sh - the examples of README.md do what it says, and its links lead somewhere
. "${0%/*}/lib.sh"
TEST_SECONDS=180

test_examples_of_the_readme() {
	need_root
	need_program qemu-system-x86_64
	host
	cd "$(scratch)"
	python3 "$TOP/test/readme.py" "$TOP/README.md"
	no_traces
}

test_links_lead_somewhere() {
	cd "$TOP"
	tools/files '*.md' | tr '\0' '\n' | while read -r page; do
		grep -o '](\([^)]*\))' "$page" | sed 's/^](//; s/)$//; s/#.*//' | while read -r link; do
			case $link in
			'' | http:* | https:*) ;;
			*) [ -e "$(dirname "$page")/$link" ] || fail "$page: $link is not there" ;;
			esac
		done
	done
}

# Whatever a page is made to print wrongly must be noticed.
test_wrong_examples_are_noticed() {
	page=$(scratch)/page.md
	printf '```sh run\necho a\n```\n\n```text\na\n```\n' >"$page"
	status 0 python3 "$TOP/test/readme.py" "$page"
	printf '```sh run\necho b\n```\n\n```text\na\n```\n' >"$page"
	status 1 python3 "$TOP/test/readme.py" "$page"
	printf '```sh run\nfalse\n```\n' >"$page"
	status 1 python3 "$TOP/test/readme.py" "$page"
	printf 'nothing\n' >"$page"
	status 1 python3 "$TOP/test/readme.py" "$page"
}

run_tests
