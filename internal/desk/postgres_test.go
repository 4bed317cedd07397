package desk

import (
	"testing"

	"berth/internal/store/storetest"
)

// What desk asks of its database is written once for SQLite and PostgreSQL. The other tests run on SQLite.
func TestPostgres(t *testing.T) {
	server := storetest.Start(t)
	on := func(url string) func(*Config) { return func(c *Config) { c.Database = url } }
	t.Run("desktop", func(t *testing.T) { newFixture(t, on(server.Empty(t))).desktopLives() })
	for _, s := range scenarios() {
		t.Run(s.flow.name, func(t *testing.T) {
			t.Parallel()
			database := server.Empty(t)
			base, x := s.prepared(t, on(database))
			for _, at := range s.places() {
				if !at.done {
					continue // repeating what has had its effect is what a database can trip over
				}
				t.Run(at.String(), func(t *testing.T) { s.failsAndIsRepeated(t, copied(t, base), server.Copy(t, database), at, x) })
			}
		})
	}
}
