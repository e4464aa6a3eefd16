# fish completion for georep: the program itself knows its commands, flags, sessions, volumes and keys.
function __georep_complete
    set -l words (commandline -opc)
    $words[1] $words[2..-1] --complete (commandline -ct) 2>/dev/null
end
complete -c georep -a '(__georep_complete)'
