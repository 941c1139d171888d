"""The subcommands of `fetalclip`, one file each: SUMMARY, EXAMPLE, add_arguments and run."""
