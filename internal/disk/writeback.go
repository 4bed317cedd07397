package disk

import "os"

// writeBack has what is written to a file go to its disk while more of it is written, so that a durable copy waits for
// little at its end. The system would begin only when much of its memory is full of it.
type writeBack struct {
	begin   func() // begins with what is written so far; may wait until there is room in the disk's queue
	running chan struct{}
	pending int64 // bytes
}

// writeBackAfter is how much is written before the disk is given it, in bytes: about a hundredth of a second of a fast disk.
const writeBackAfter = 16 << 20

func newWriteBack(f *os.File) *writeBack {
	return &writeBack{begin: func() { beginWriteBack(f) }, running: make(chan struct{}, 1)}
}

// wrote says that n more bytes were written. It does not wait: what comes while the disk is busy goes with the next ones.
func (w *writeBack) wrote(n int64) {
	if w.pending += n; w.pending < writeBackAfter {
		return
	}
	select {
	case w.running <- struct{}{}:
		w.pending = 0
		go func() {
			w.begin()
			<-w.running
		}()
	default:
	}
}
