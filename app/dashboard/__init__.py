"""The browser edge: pages, their data and static files. Nothing in it needs the internet."""
