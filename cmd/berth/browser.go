package main

import (
	"log/slog"
	"net/http"

	"berth/internal/console"
	"berth/internal/desk"
	"berth/internal/gateway"
)

// browser mounts the pages for people: the console at /, the desktops at /desktop, and what both load.
func browser(pages *http.ServeMux, d *desk.Desk, log *slog.Logger) {
	bundle := console.BuiltAssets()
	desktop := gateway.New(gateway.Config{Service: d, Assets: bundle, Log: log.With("part", "gateway")})
	pages.Handle("/desktop", desktop)
	pages.Handle("/desktop/", desktop)
	admin := console.New(console.Config{Service: d, Assets: bundle, Log: log.With("part", "console")})
	pages.Handle("GET /{$}", admin)
	pages.Handle("/console/", admin)
	pages.Handle("GET "+console.AssetPath, console.Assets())
}
