"""What is done to the project on purpose."""
