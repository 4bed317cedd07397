package inflate

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
)

// BenchmarkAgainstKlauspost decompresses the same grains of 64 KiB with this package and with klauspost/compress by turns,
// and reports how many times as fast this is (x-klauspost); zlib is with the checksum, as VMDK has it.
func BenchmarkAgainstKlauspost(b *testing.B) {
	all := grains(b, 255)
	for _, wrapped := range []bool{false, true} {
		name := "raw"
		if wrapped {
			name = "zlib"
		}
		b.Run(name, func(b *testing.B) {
			var packed [][]byte
			for _, g := range all {
				if wrapped {
					packed = append(packed, zlibbed(b, g))
				} else {
					packed = append(packed, deflated(b, g, 6))
				}
			}
			block := make([]byte, grain)
			var d Decoder
			ours := func(p []byte) error {
				var err error
				if wrapped {
					_, _, err = d.Zlib(block, p)
				} else {
					_, _, err = d.Raw(block, p)
				}
				return err
			}
			src := bytes.NewReader(packed[0])
			peer := flate.NewReader(src)
			if wrapped {
				var err error
				if peer, err = zlib.NewReader(src); err != nil {
					b.Fatal(err)
				}
			}
			theirs := func(p []byte) error {
				src.Reset(p)
				var err error
				if wrapped {
					err = peer.(zlib.Resetter).Reset(src, nil)
				} else {
					err = peer.(flate.Resetter).Reset(src, nil)
				}
				if err == nil {
					_, err = io.ReadFull(peer, block)
				}
				return err
			}
			b.SetBytes(int64(len(all) * grain))
			var own, other time.Duration
			for b.Loop() {
				// Eight grains each at a time, so that whatever else the machine does falls on both.
				for at := 0; at < len(packed); at += 8 {
					part := packed[at:min(at+8, len(packed))]
					for _, run := range []struct {
						decode func([]byte) error
						took   *time.Duration
					}{{ours, &own}, {theirs, &other}} {
						begun := time.Now()
						for _, p := range part {
							if err := run.decode(p); err != nil {
								b.Fatal(err)
							}
						}
						*run.took += time.Since(begun)
					}
				}
			}
			out := float64(b.N) * float64(len(all)*grain) / (1 << 20)
			b.ReportMetric(out/own.Seconds(), "MiB/s")
			b.ReportMetric(out/other.Seconds(), "klauspost-MiB/s")
			b.ReportMetric(other.Seconds()/own.Seconds(), "x-klauspost")
		})
	}
}
