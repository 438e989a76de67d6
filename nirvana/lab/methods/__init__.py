"""Methods that find masks, one file each."""
