"""What a terminal sees and says: arguments, messages, tables; libraries that wait for their first use."""
