"""Where units of work run. Imported by `launch/` alone; knows no stage."""
