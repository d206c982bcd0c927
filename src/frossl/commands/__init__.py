"""The commands of ``frossl``, a file each: its arguments and ``run(args, console)``, which gives the exit code."""
