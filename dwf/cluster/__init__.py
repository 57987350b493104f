"""Where units of work run. Imported by `commands` alone; knows no stage."""
