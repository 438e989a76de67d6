"""Device codes: how a command line gets a token without anybody pasting one."""
