"""What the operating system and the terminal give: files and their errors, signals, output."""
