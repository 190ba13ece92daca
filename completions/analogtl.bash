# Bash completion for analogtl. Source it in ~/.bashrc, or copy it to ~/.local/share/bash-completion/completions/.
# Written by `python -m analogtl.cli.generate`: change analogtl/cli/scripts.py, not this file.

_analogtl() {
    local IFS=$'\n'
    COMPREPLY=($(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \
        _ANALOGTL_COMPLETE=complete_bash "$1" 2>/dev/null))
    # After a folder or `key=` something follows: no space.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o default -F _analogtl analogtl
