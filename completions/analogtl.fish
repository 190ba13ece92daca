complete --command analogtl --no-files --arguments "(env _ANALOGTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) analogtl)" --condition "env _ANALOGTL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) analogtl"
# made by Typer 0.29.2
