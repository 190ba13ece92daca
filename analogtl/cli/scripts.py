"""The completion scripts of bash, zsh and fish, as they lie in ``completions/``.

The scripts only ask: what to offer is answered by `analogtl` itself, so they stay right when
commands change. Typer answers on the environment variable below; see `analogtl.cli.complete`.
"""

from __future__ import annotations

HEADER = """\
# {shell} completion for analogtl. {where}
# Written by `python -m analogtl.cli.generate`: change analogtl/cli/scripts.py, not this file.
"""

BASH = """
_analogtl() {
    local IFS=$'\\n'
    COMPREPLY=($(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" \\
        _ANALOGTL_COMPLETE=complete_bash "$1" 2>/dev/null))
    # After a folder or `key=` something follows: no space.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -o default -F _analogtl analogtl
"""

ZSH = """
_analogtl() {
    eval "$(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \\
        _ANALOGTL_COMPLETE=complete_zsh "${words[1]}" 2>/dev/null)"
}

if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
    _analogtl "$@"
else
    compdef _analogtl analogtl
fi
"""

FISH = """
function __analogtl_complete
    env _ANALOGTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] \\
        _TYPER_COMPLETE_ARGS=(commandline -cp) analogtl 2>/dev/null
end

complete --command analogtl --no-files \\
    --arguments '(__analogtl_complete get-args)' --condition '__analogtl_complete is-args'
"""


def scripts() -> dict[str, str]:
    """File name -> content of every completion script."""
    bash = "Source it in ~/.bashrc, or copy it to ~/.local/share/bash-completion/completions/."
    zsh = "Copy it to a folder of $fpath, before compinit runs."
    fish = "Copy it to ~/.config/fish/completions/."
    return {
        "analogtl.bash": HEADER.format(shell="Bash", where=bash) + BASH,
        "_analogtl": "#compdef analogtl\n" + HEADER.format(shell="Zsh", where=zsh) + ZSH,
        "analogtl.fish": HEADER.format(shell="Fish", where=fish) + FISH,
    }
