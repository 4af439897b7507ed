"""The routes, one file a subject; each file gives a router for the services that it is handed."""
