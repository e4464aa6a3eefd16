# bash completion for georep: the program itself knows its commands, flags, sessions, volumes and keys.
_georep() {
	local cur=${COMP_WORDS[COMP_CWORD]} words
	local IFS=$'\n'
	words=$("${COMP_WORDS[0]}" "${COMP_WORDS[@]:1:COMP_CWORD-1}" --complete "$cur" 2>/dev/null)
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
	# Readline takes a colon for the end of a word.
	if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
		local i=${#COMPREPLY[*]} prefix=${cur%"${cur##*:}"}
		while ((i-- > 0)); do COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}; done
	fi
}
complete -o default -F _georep georep
