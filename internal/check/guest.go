package check

import (
	"errors"

	"berth/internal/windows"
)

// errOnlyRunning: the System is a powered-off disk.
var errOnlyRunning = errors.New("only a running Windows can tell")

// ask asks the running Windows; what names the question.
func ask[T any](r *reader, what string, question func(windows.Guest) (T, error)) (T, error) {
	guest, ok := r.sys.(windows.Guest)
	if !ok || !r.running {
		var none T
		return none, errOnlyRunning
	}
	answer, err := question(guest)
	if err != nil {
		return answer, errors.New(what + ": " + why(err))
	}
	return answer, nil
}
