"""What the thesis defines or claims and does not measure."""
