"""What goes on beside the messages: retention, overdue rows, tables and migrations, dead letters counted."""
