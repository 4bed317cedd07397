package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
)

// configuration is a configuration file: a JSON object with flags' names as keys. A key that is no flag of any command is an
// error: a misspelt setting must not pass for a default.
type configuration map[string]any

// loadConfiguration reads a configuration file.
func loadConfiguration(r io.Reader) (kong.Resolver, error) {
	c := configuration{}
	dec := json.NewDecoder(r)
	dec.UseNumber()
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("configuration file: there is more after the object, at byte %d", dec.InputOffset())
	}
	return c, nil
}

// Resolve implements kong.Resolver. The environment overrules the file; kong would have it the other way round.
func (c configuration) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return nil, nil
		}
	}
	switch v := c[flag.Name].(type) {
	case nil:
		return nil, nil
	case []any: // a list, as it would be written on the command line
		var parts []string
		for _, p := range v {
			parts = append(parts, fmt.Sprint(p))
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return nil, fmt.Errorf("configuration file: %s: an object where a value belongs", flag.Name)
	default:
		return fmt.Sprint(v), nil
	}
}

// Validate implements kong.Resolver.
func (c configuration) Validate(app *kong.Application) error {
	known := map[string]bool{}
	if err := kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if f, ok := node.(*kong.Flag); ok {
			known[f.Name] = true
		}
		return next(nil)
	}); err != nil {
		return err
	}
	for key := range c {
		if !known[key] {
			return fmt.Errorf("configuration file: there is no flag %q", key)
		}
	}
	return nil
}
