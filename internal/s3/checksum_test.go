package s3

import (
	"encoding/base64"
	"encoding/hex"
	"testing"
)

// The check values of the CRC catalogue (reveng), for "123456789".
func TestChecksumCheckValues(t *testing.T) {
	want := map[Algorithm]string{CRC32: "cbf43926", CRC32C: "e3069283", CRC64NVME: "ae8b14860a799888"}
	for a, w := range want {
		h := a.new()
		h.Write([]byte("123456789"))
		if got := hex.EncodeToString(h.Sum(nil)); got != w {
			t.Errorf("%s: %s, want %s", a, got, w)
		}
	}
}

// The checksum of a whole, made of its parts', is that of the whole.
func TestCombineFullObject(t *testing.T) {
	whole := noise(1, 100_000)
	sum := func(a Algorithm, b []byte) string {
		h := a.new()
		h.Write(b)
		return base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	for _, a := range []Algorithm{CRC32, CRC32C, CRC64NVME} {
		for _, cuts := range [][]int{{0}, {0, 1}, {0, 8, 4096, 99_999}, {0, 50_000, 50_000}, {0, 33_333, 66_666}} {
			var parts []part
			for i, from := range cuts {
				to := len(whole)
				if i+1 < len(cuts) {
					to = cuts[i+1]
				}
				parts = append(parts, part{Number: i + 1, Size: int64(to - from), Checksum: Checksum{Algorithm: a, Value: sum(a, whole[from:to])}})
			}
			got, err := a.combine(fullObject, parts)
			if err != nil {
				t.Fatal(err)
			}
			if want := sum(a, whole); got.Value != want {
				t.Errorf("%s cut at %v: %s, want %s", a, cuts, got.Value, want)
			}
		}
	}
	if _, err := CRC32.combine(fullObject, []part{{Number: 1, Size: 1}}); err == nil {
		t.Error("a part without a checksum was combined")
	}
}
