package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"

	"berth/internal/gateway"
)

//go:embed all:dist
var dist embed.FS

// AssetPath is where browsers find the bundle.
const AssetPath = "/assets/"

// Built tells whether the bundle is in this binary. Without it the pages only say how to build it.
func Built() bool {
	_, err := fs.Stat(dist, "dist/desktop.js")
	return err == nil
}

// BuiltAssets is AssetPath, "" when the bundle is not in this binary.
func BuiltAssets() string {
	if Built() {
		return AssetPath
	}
	return ""
}

// Assets serves the bundle below AssetPath: scripts, styles, and the licences of what is in them. They hold no secret, and
// nobody has to sign in for them.
func Assets() http.Handler {
	h, err := serveBundle(dist)
	if err != nil {
		panic("console: the embedded bundle cannot be read: " + err.Error()) // it is part of the program
	}
	return h
}

// serveBundle serves what is in the folder dist.
func serveBundle(bundle fs.FS) (http.Handler, error) {
	tags := map[string]string{} // by path in bundle
	err := fs.WalkDir(bundle, "dist", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(e.Name(), ".") || e.Name() == "README.md" {
			return err
		}
		b, err := fs.ReadFile(bundle, name)
		sum := sha256.Sum256(b)
		tags[name] = `"` + hex.EncodeToString(sum[:8]) + `"`
		return err
	})
	return gateway.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "dist/" + strings.TrimPrefix(r.URL.Path, AssetPath)
		tag, ok := tags[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		// Browsers ask each time, and load again only what has changed.
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		if t := mime.TypeByExtension(path.Ext(name)); t != "" {
			w.Header().Set("Content-Type", t)
		}
		http.ServeFileFS(w, r, bundle, name)
	})), err
}
