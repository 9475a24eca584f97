"""The `holdfast` command: configuration, commands, and the one place where the parts are wired together."""
