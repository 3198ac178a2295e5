"""Files of other projects: import and export."""
