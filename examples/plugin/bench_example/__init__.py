"""What another package can bring to bench: one file each."""
