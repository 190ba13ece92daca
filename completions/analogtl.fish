# Fish completion for analogtl. Copy it to ~/.config/fish/completions/.
# Written by `python -m analogtl.cli.generate`: change analogtl/cli/scripts.py, not this file.

function __analogtl_complete
    env _ANALOGTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=$argv[1] \
        _TYPER_COMPLETE_ARGS=(commandline -cp) analogtl 2>/dev/null
end

complete --command analogtl --no-files \
    --arguments '(__analogtl_complete get-args)' --condition '__analogtl_complete is-args'
