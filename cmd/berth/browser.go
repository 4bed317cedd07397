package main

import (
	"log/slog"
	"net/http"

	"berth/internal/desk"
)

// browser mounts the pages for people.
func browser(pages *http.ServeMux, d *desk.Desk, log *slog.Logger) {}
