# Completion of hotcell for bash: commands, options and sandboxes, asked from the program itself.
_hotcell()
{
	local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words

	if [ "$COMP_CWORD" -eq 1 ]; then
		words=$(hotcell help 2>/dev/null | awk '/^  [a-z]/ { print $1 }')
	elif [[ $word == -* ]]; then
		words=$(hotcell help "$verb" 2>/dev/null | grep -o -e '--[a-z][a-z-]*')
	elif [ "$COMP_CWORD" -eq 2 ] && [[ $verb == @(code|daemon|image|pool|snapshot|template) ]]; then
		# the words behind "usage: hotcell VERB [OPTIONS]", one between two bars; of image, a line each
		words=$(hotcell help "$verb" 2>/dev/null | sed -n -e 's/^hotcell image \([a-z]*\).*/\1/p' \
			-e 's/^usage: hotcell [a-z]* \[OPTIONS\]//p' | tr '|' '\n' | awk '{ gsub(/[][]/, "", $1); print $1 }')
	elif [ "$verb" = help ]; then
		words=$(hotcell help 2>/dev/null | awk '/^  [a-z]/ { print $1 }')
	else
		# never start a daemon for a key press
		words=$(hotcell version --json 2>/dev/null | grep -q '"daemon":"[0-9]' &&
			hotcell list 2>/dev/null | awk 'NR > 1 { print ($2 == "-" ? $1 : $2) }')
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
	[[ $verb == cp && ${#COMPREPLY[@]} -eq 0 ]] && compopt -o default
	return 0
}
complete -F _hotcell hotcell
