package memory_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/internal/compute"
	"berth/internal/compute/computetest"
	"berth/internal/compute/memory"
)

// header is the header of an empty qcow2 image of 1 GiB: all that memory reads of an image.
func header() []byte {
	b := make([]byte, 1<<16)
	copy(b, "QFI\xfb")
	binary.BigEndian.PutUint32(b[4:], 3)
	binary.BigEndian.PutUint64(b[24:], uint64(compute.GiB))
	return b
}

func TestContract(t *testing.T) {
	computetest.Run(t, func(t *testing.T) computetest.Fixture {
		host := memory.NewHost()
		image := filepath.Join(t.TempDir(), "image.qcow2")
		if err := os.WriteFile(image, header(), 0o600); err != nil {
			t.Fatal(err)
		}
		return computetest.Fixture{
			Open:  func() (compute.Driver, error) { return host.Open(), nil },
			Image: image,
			Kill: func(id string) error {
				if !host.Kill(id) {
					return fmt.Errorf("%s does not run", id)
				}
				return nil
			},
			Started:    host.Started,
			GuestBoots: func(id string) (int, error) { return host.GuestBoots(id), nil },
			Volumes:    func(id string) (map[string]int64, error) { return host.Volumes(id), nil },
			Leftovers: func(id string) (left []string) {
				for name := range host.Volumes(id) {
					left = append(left, name)
				}
				return left
			},
			Patience: 10 * time.Second,
		}
	})
}
