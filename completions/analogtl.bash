_analogtl_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _ANALOGTL_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _analogtl_completion analogtl
# made by Typer 0.29.2
