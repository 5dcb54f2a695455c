"""Programs that travel to servers and engines. Standard library only; they import nothing of the package."""
