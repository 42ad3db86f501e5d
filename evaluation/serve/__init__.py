"""Recognition for clients: WebSocket and HTTP over the event-driven engine, and a page."""
