# bash completion for georep: the program itself knows its commands, flags, sessions, volumes and keys.
_georep() {
	# Of the line itself, since COMP_WORDS has each colon of backup::copy or file:///srv, and each =, as a word of its own.
	local line=${COMP_LINE:0:COMP_POINT} words cur
	read -ra words <<<"$line"
	[[ $line != *[[:space:]] ]] || words+=('')
	cur=${words[-1]}
	# The program says what fits. The shell expands none of it.
	mapfile -t COMPREPLY < <("${words[0]}" "${words[@]:1:${#words[@]}-2}" --complete "$cur" 2>/dev/null)
	# What Readline is to replace begins behind the last of those.
	local breaks=${COMP_WORDBREAKS//[^:=]/} i=${#COMPREPLY[@]} prefix=
	[[ -z $breaks ]] || prefix=${cur%"${cur##*["$breaks"]}"}
	while ((i-- > 0)); do COMPREPLY[i]=${COMPREPLY[i]#"$prefix"}; done
}
complete -o default -F _georep georep
