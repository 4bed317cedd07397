package disk

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"berth/testdata/hostile"
)

// plainQCOW2 writes a version 3 disk with clusters of 64 KiB, in order, without using the reader's code.
func plainQCOW2(guest []byte) []byte {
	const cluster = 65536
	n := (len(guest) + cluster - 1) / cluster
	out := make([]byte, 3*cluster) // header, L1, L2 (for up to 512 MiB)
	copy(out, qcow2Magic)
	be.PutUint32(out[4:], 3)
	be.PutUint32(out[20:], 16)
	be.PutUint64(out[24:], uint64(len(guest)))
	be.PutUint32(out[36:], 1)
	be.PutUint64(out[40:], cluster)
	be.PutUint32(out[96:], 4)
	be.PutUint32(out[100:], 104)
	be.PutUint64(out[cluster:], 2*cluster|1<<63)
	for i := range n {
		data := guest[i*cluster : min(len(guest), (i+1)*cluster)]
		if firstNonZero(data) < 0 {
			continue
		}
		be.PutUint64(out[2*cluster+i*8:], uint64(len(out))|1<<63)
		out = append(out, data...)
		out = append(out, make([]byte, -len(out)&(cluster-1))...)
	}
	return out
}

// packedQCOW2 is a disk of one cluster of 64 KiB whose compressed bytes are packed.
func packedQCOW2(packed []byte, method byte) []byte {
	out := plainQCOW2(make([]byte, 65536))
	if method != 0 {
		be.PutUint64(out[72:], qcow2Compression)
		be.PutUint32(out[100:], 112)
		out[104] = method
	}
	at := len(out)
	out = append(out, packed...)
	out = append(out, make([]byte, -len(out)&511)...)
	be.PutUint64(out[2*65536:], 1<<62|uint64((len(out)-at)/512-1)<<(62-8)|uint64(at))
	return out
}

func deflated(n int) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, 9)
	return packedZeros(n, &b, w, err)
}

func zlibbed(n int) []byte {
	var b bytes.Buffer
	return packedZeros(n, &b, zlib.NewWriter(&b), nil)
}

func packedZeros(n int, b *bytes.Buffer, w io.WriteCloser, err error) []byte {
	if err == nil {
		_, err = w.Write(make([]byte, n))
	}
	if err = errors.Join(err, w.Close()); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func zstded(n int) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(make([]byte, n), nil)
}

// grainOf is a stream of one grain of 16 KiB whose compressed bytes are packed.
func grainOf(packed []byte) []byte {
	guest := guestDisk(16384, 1)
	file := streamVMDK(guest, atFront)
	at := int(le.Uint32(file[(le.Uint64(file[56:])+1)*512:])) * 512 // directory, table, grain
	file = append(le.AppendUint32(file[:at+8], uint32(len(packed))), packed...)
	return append(file, make([]byte, 1024-len(file)&511)...)
}

// patched returns p with b at byte at.
func patched(p []byte, at int, b ...byte) []byte {
	p = slices.Clone(p)
	copy(p[at:], b)
	return p
}

func be32(n uint32) []byte { return be.AppendUint32(nil, n) }
func be64(n uint64) []byte { return be.AppendUint64(nil, n) }
func le32(n uint32) []byte { return le.AppendUint32(nil, n) }
func le64(n uint64) []byte { return le.AppendUint64(nil, n) }

// changedVHDX is a hostile VHDX: change is made to a sound one, whose checksums are then mended.
func changedVHDX(change func(p []byte)) []byte {
	p := plainVHDX(quietDisk(1<<20), 512)
	change(p)
	mendVHDX(p)
	return p
}

// hostileFile is a file made to harm, or one that must not be read for another reason. With read it opens, and is
// refused when its bytes are asked for; with table its bytes are read, and its partition table is refused.
type hostileFile struct {
	name        string
	file        []byte
	opt         Options
	format      string
	reason      Reason
	field       string
	read, table bool
}

// quietDisk is a guest's disk with little on it, so that the hostile files are small.
func quietDisk(size int64) []byte {
	p := make([]byte, size)
	copy(p, "The quick brown fox jumps over the lazy dog.")
	copy(p[510:], "\x55\xaa")
	copy(p[size-9:], "last byte")
	return p
}

func hostileFiles(t testing.TB) []hostileFile {
	guest := quietDisk(1 << 20)
	q := plainQCOW2(guest)
	esx := streamVMDK(guest, esxi)
	front := streamVMDK(guest, atFront)
	foot := len(esx) - 1024
	vhd := dynamicVHD(guest, 3)
	both := func(at int, b ...byte) []byte { return patched(patched(esx, at, b...), foot+at, b...) }
	mendVHD := func(p []byte) []byte {
		h := p[512:1536]
		be.PutUint32(h[36:], vhdChecksum(h, 36))
		return p
	}
	ova := func(files ...tarFile) []byte { return writeTar(t, tar.FormatUSTAR, files...) }
	ovf := func(name string) tarFile { return tarFile{"a.ovf", vmwareOVF(name)} }
	backing := slices.Replace(slices.Clone(q), 512, 512+11, []byte("/etc/passwd")...)
	copy(backing[8:], be64(512))
	copy(backing[16:], be32(11))

	return []hostileFile{
		{name: "qcow2 backing file /etc/passwd", file: backing, format: "QCOW2", reason: RefersElsewhere, field: "backing file"},
		{name: "qcow2 external data file", file: patched(q, 72, be64(4)...), format: "QCOW2", reason: RefersElsewhere, field: "external data file"},
		{name: "qcow2 AES", file: patched(q, 32, be32(1)...), format: "QCOW2", reason: Encrypted, field: "encryption"},
		{name: "qcow2 LUKS", file: patched(q, 32, be32(2)...), format: "QCOW2", reason: Encrypted, field: "encryption"},
		{name: "qcow2 corrupt", file: patched(q, 72, be64(2)...), format: "QCOW2", reason: Damaged, field: "corrupt"},
		{name: "qcow2 unknown feature", file: patched(q, 72, be64(32)...), format: "QCOW2", reason: Unsupported, field: "incompatible"},
		{name: "qcow2 feature 2^63", file: patched(q, 72, be64(1<<63)...), format: "QCOW2", reason: Unsupported, field: "incompatible"},
		{name: "qcow2 version 1", file: patched(q, 4, be32(1)...), format: "QCOW2", reason: Unsupported, field: "version"},
		{name: "qcow2 header length 0", file: patched(q, 100, be32(0)...), format: "QCOW2", reason: Damaged, field: "header length"},
		{name: "qcow2 header length 2^32-1", file: patched(q, 100, be32(math.MaxUint32)...), format: "QCOW2", reason: Damaged, field: "header length"},
		{name: "qcow2 compression bit without type", file: patched(q, 72, be64(8)...), format: "QCOW2", reason: Damaged, field: "header length"},
		{name: "qcow2 compression 2", file: patched(packedQCOW2(nil, 1), 104, 2), format: "QCOW2", reason: Unsupported, field: "compression"},
		{name: "qcow2 cluster bits 63", file: patched(q, 20, be32(63)...), format: "QCOW2", reason: Damaged, field: "cluster bits"},
		{name: "qcow2 cluster bits 8", file: patched(q, 20, be32(8)...), format: "QCOW2", reason: Damaged, field: "cluster bits"},
		{name: "qcow2 cluster bits 22", file: patched(q, 20, be32(22)...), format: "QCOW2", reason: Damaged, field: "cluster bits"},
		{name: "qcow2 extended L2, cluster bits 13", file: patched(patched(q, 20, be32(13)...), 72, be64(16)...), format: "QCOW2", reason: Damaged, field: "cluster bits"},
		{name: "qcow2 size 0", file: patched(q, 24, be64(0)...), format: "QCOW2", reason: Damaged, field: "size"},
		{name: "qcow2 size 511", file: patched(q, 24, be64(511)...), format: "QCOW2", reason: Damaged, field: "size"},
		{name: "qcow2 size 2^63-1", file: patched(q, 24, be64(math.MaxInt64)...), format: "QCOW2", reason: TooLarge, field: "size"},
		{name: "qcow2 size 2^64-512", file: patched(q, 24, be64(math.MaxUint64-511)...), format: "QCOW2", reason: TooLarge, field: "size"},
		{name: "qcow2 16 TiB", file: patched(q, 24, be64(16<<40)...), format: "QCOW2", reason: TooLarge, field: "size"},
		{name: "qcow2 over policy", file: q, opt: Options{MaxSize: 1<<20 - 512}, format: "QCOW2", reason: TooLarge, field: "size"},
		{name: "qcow2 L1 of 2^32-1", file: patched(q, 36, be32(math.MaxUint32)...), format: "QCOW2", reason: Damaged, field: "L1 size"},
		{name: "qcow2 L1 of 32 MiB", file: patched(q, 36, be32(4<<20)...), format: "QCOW2", reason: Damaged, field: "L1 table"},
		{name: "qcow2 L1 too small", file: patched(q, 24, be64(1<<40)...), format: "QCOW2", reason: Damaged, field: "L1 size"},
		{name: "qcow2 L1 at 2^64-65536", file: patched(q, 40, be64(math.MaxUint64&^0xffff)...), format: "QCOW2", reason: Damaged, field: "L1 table"},
		{name: "qcow2 L1 between clusters", file: patched(q, 40, be64(512)...), format: "QCOW2", reason: Damaged, field: "L1 table"},
		{name: "qcow2 L2 beyond the file", file: patched(q, 65536, be64(1<<50)...), format: "QCOW2", reason: Damaged, field: "L2 table", read: true},
		{name: "qcow2 L2 between clusters", file: patched(q, 65536, be64(512)...), format: "QCOW2", reason: Damaged, field: "L1 entry", read: true},
		{name: "qcow2 cluster beyond the file", file: patched(q, 2*65536, be64(1<<50)...), format: "QCOW2", reason: Damaged, field: "L2 entry", read: true},
		{name: "qcow2 cluster between clusters", file: patched(q, 2*65536, be64(512)...), format: "QCOW2", reason: Damaged, field: "L2 entry", read: true},
		{name: "qcow2 compressed beyond the file", file: patched(q, 2*65536, be64(1<<62|1<<50)...), format: "QCOW2", reason: Damaged, field: "L2 entry", read: true},
		{name: "qcow2 compressed too short", file: packedQCOW2(deflated(65535), 0), format: "QCOW2", reason: Damaged, field: "compressed cluster", read: true},
		{name: "qcow2 compressed nonsense", file: packedQCOW2(bytes.Repeat([]byte{0xff}, 100), 0), format: "QCOW2", reason: Damaged, field: "compressed cluster", read: true},
		{name: "qcow2 zstd too short", file: packedQCOW2(zstded(65535), 1), format: "QCOW2", reason: Damaged, field: "compressed cluster", read: true},
		{name: "qcow2 zstd window of 3.75 TiB", file: packedQCOW2([]byte("\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00"), 1), format: "QCOW2", reason: Damaged, field: "compressed cluster", read: true},
		{name: "qcow2 subclusters contradict", file: patched(patched(q, 72, be64(16)...), 2*65536+8, be64(1<<32|1)...), format: "QCOW2", reason: Damaged, field: "L2 entry", read: true},

		{name: "vmdk grain size 0", file: both(20, le64(0)...), format: "VMDK", reason: Damaged, field: "grain size"},
		{name: "vmdk grain size 2^54", file: both(20, le64(1<<54)...), format: "VMDK", reason: Damaged, field: "grain size"},
		{name: "vmdk grain size 2^63", file: both(20, le64(1<<63)...), format: "VMDK", reason: Damaged, field: "grain size"},
		{name: "vmdk grain size 100", file: both(20, le64(100)...), format: "VMDK", reason: Damaged, field: "grain size"},
		{name: "vmdk capacity 0", file: both(12, le64(0)...), format: "VMDK", reason: Damaged, field: "capacity"},
		{name: "vmdk capacity 2^62", file: both(12, le64(1<<62)...), format: "VMDK", reason: TooLarge, field: "capacity"},
		{name: "vmdk capacity 2^64-1", file: both(12, le64(math.MaxUint64)...), format: "VMDK", reason: TooLarge, field: "capacity"},
		{name: "vmdk capacity beyond the tables", file: both(12, le64(1<<34)...), format: "VMDK", reason: Damaged, field: "grain directory"},
		{name: "vmdk 0 entries in a table", file: both(44, le32(0)...), format: "VMDK", reason: Damaged, field: "entries"},
		{name: "vmdk 2^32-1 entries in a table", file: both(44, le32(math.MaxUint32)...), format: "VMDK", reason: Damaged, field: "entries"},
		{name: "vmdk directory at 2^63", file: patched(front, 56, le64(1<<63)...), format: "VMDK", reason: Damaged, field: "grain directory"},
		{name: "vmdk directory at 0", file: patched(front, 56, le64(0)...), format: "VMDK", reason: Damaged, field: "grain directory"},
		{name: "vmdk footer says footer", file: patched(esx, foot+56, le64(vmdkAtEnd)...), format: "VMDK", reason: Damaged, field: "grain directory"},
		{name: "vmdk footer missing", file: esx[:len(esx)-1024], format: "VMDK", reason: Damaged, field: "footer"},
		{name: "vmdk footer of another", file: patched(esx, foot+12, le64(2)...), format: "VMDK", reason: Damaged, field: "footer"},
		{name: "vmdk version 4", file: both(4, le32(4)...), format: "VMDK", reason: Unsupported, field: "version"},
		{name: "vmdk compression 2", file: both(77, 2), format: "VMDK", reason: Unsupported, field: "compression"},
		{name: "vmdk without markers", file: both(8, le32(0x10001)...), format: "VMDK", reason: Unsupported, field: "flags"},
		{name: "vmdk copied as text", file: both(73, []byte("\r\n\r\n")...), format: "VMDK", reason: Damaged, field: "newline"},
		{name: "vmdk descriptor at 2^63", file: patched(esx, 28, le64(1<<63)...), format: "VMDK", reason: Damaged, field: "descriptor"},
		{name: "vmdk descriptor of 2^63", file: patched(esx, 36, le64(1<<63)...), format: "VMDK", reason: Damaged, field: "descriptor"},
		{name: "vmdk without descriptor", file: patched(esx, 28, le64(0)...), format: "VMDK", reason: RefersElsewhere, field: "descriptor"},
		{name: "vmdk embedded parent", file: bytes.Replace(esx, []byte("parentCID=ffffffff"), []byte("parentCID=fffffffe"), 1), format: "VMDK", reason: RefersElsewhere, field: "parentCID"},
		{name: "vmdk embedded FLAT /etc/passwd", file: bytes.Replace(esx, []byte(`RDONLY 2048 SPARSE "generated-stream.vmdk"`), []byte(`RDONLY 2048 FLAT "/etc/passwd" 0         `), 1), format: "VMDK", reason: RefersElsewhere, field: "extent"},
		{name: "vmdk embedded FLAT of a sibling", file: bytes.Replace(esx, []byte(`RDONLY 2048 SPARSE "generated-stream.vmdk"`), []byte(`RDONLY 2048 FLAT "generated-str.vmdk" 0   `), 1), format: "VMDK", reason: RefersElsewhere, field: "descriptor"},
		{name: "vmdk table beyond the file", file: patched(front, int(le.Uint64(front[56:]))*512, le32(math.MaxUint32)...), format: "VMDK", reason: Damaged, field: "grain table", read: true},
		{name: "vmdk grain beyond the file", file: patched(front, int(le.Uint64(front[56:])+1)*512, le32(math.MaxUint32)...), format: "VMDK", reason: Damaged, field: "grain", read: true},
		{name: "vmdk grain of another place", file: patched(esx, 128*512, le64(7)...), format: "VMDK", reason: Damaged, field: "grain marker", read: true},
		{name: "vmdk grain of 2^32-1 bytes", file: patched(esx, 128*512+8, le32(math.MaxUint32)...), format: "VMDK", reason: Damaged, field: "grain marker", read: true},
		{name: "vmdk zlib bomb in a grain", file: grainOf(zlibbed(16 << 20)), format: "VMDK", reason: Damaged, field: "grain", read: true},
		{name: "vmdk grain too short", file: grainOf(zlibbed(16383)), format: "VMDK", reason: Damaged, field: "grain", read: true},
		{name: "vmdk grain checksum", file: grainOf(patched(zlibbed(16384), len(zlibbed(16384))-1, 0x55)), format: "VMDK", reason: Damaged, field: "grain", read: true},
		{name: "vmdk vmfsSparse", file: append([]byte(cowdMagic), make([]byte, 2048)...), format: "VMDK", reason: Unsupported, field: "magic"},
		{name: "vmdk SEsparse", file: append([]byte(seSparseMagic), make([]byte, 2048)...), format: "VMDK", reason: Unsupported, field: "magic"},
		{name: "vmdk descriptor of 2 MiB", file: append([]byte("# Disk DescriptorFile\n"), bytes.Repeat([]byte("# padding\n"), 200_000)...), format: "VMDK", reason: Damaged, field: "descriptor"},
		{name: "vmdk 10,000 extents", file: []byte("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"x\"\n" + strings.Repeat("RW 8 ZERO\n", 10_000)), format: "VMDK", reason: Damaged, field: "extents"},

		{name: "vmdk FLAT /etc/passwd", file: textVMDK(`RW 4 FLAT "/etc/passwd" 0`), format: "VMDK", reason: RefersElsewhere, field: "extent"},
		{name: "vmdk FLAT ../secret", file: textVMDK(`RW 4 FLAT "../secret" 0`), format: "VMDK", reason: RefersElsewhere, field: "extent"},
		{name: "vmdk FLAT on a share of Windows", file: textVMDK(`RW 4 FLAT "\\localhost\share\a" 0`), format: "VMDK", reason: RefersElsewhere, field: "extent"},
		{name: "vmdk SPARSE that did not come along", file: textVMDK(`RW 4 SPARSE "a-s001.vmdk"`), format: "VMDK", reason: RefersElsewhere, field: "extent a-s001.vmdk"},
		{name: "vmdk RDM", file: textVMDK(`RW 4 VMFSRDM "a-rdm.vmdk"`), format: "VMDK", reason: RefersElsewhere, field: "extent"},
		{name: "vmdk parent file name", file: textVMDK("parentFileNameHint=\"/vmfs/base.vmdk\"\nRW 4 SPARSE \"a\""), format: "VMDK", reason: RefersElsewhere, field: "parentFileNameHint"},
		{name: "vmdk extents of 2^64 sectors", file: textVMDK("RW 18446744073709551615 ZERO\nRW 18446744073709551615 ZERO"), format: "VMDK", reason: Damaged, field: "extent"},

		{name: "vhd differencing", file: slices.Concat(make([]byte, 512), vhdFooterFor(512, 4, "win ", 0)), format: "VHD", reason: RefersElsewhere, field: "disk type"},
		{name: "vhd block size 0", file: mendVHD(patched(vhd, 512+32, be32(0)...)), format: "VHD", reason: Damaged, field: "block size"},
		{name: "vhd block size 2^31", file: mendVHD(patched(vhd, 512+32, be32(1<<31)...)), format: "VHD", reason: Damaged, field: "block size"},
		{name: "vhd BAT too short", file: mendVHD(patched(vhd, 512+28, be32(1)...)), format: "VHD", reason: Damaged, field: "BAT entries"},
		{name: "vhd BAT at 2^64-4", file: mendVHD(patched(vhd, 512+16, be64(math.MaxUint64-3)...)), format: "VHD", reason: Damaged, field: "BAT"},
		{name: "vhd header version 2", file: mendVHD(patched(vhd, 512+24, be32(0x20000)...)), format: "VHD", reason: Unsupported, field: "version"},
		{name: "vhd header checksum", file: patched(vhd, 512+40, 1), format: "VHD", reason: Damaged, field: "checksum"},
		{name: "vhd block beyond the file", file: patched(vhd, 1536, be32(0xfffffffe)...), format: "VHD", reason: Damaged, field: "block", read: true},
		{name: "vhd 2^63-512 bytes", file: slices.Concat(make([]byte, 512), vhdFooterFor(math.MaxInt64&^511, 2, "win ", 0)), format: "VHD", reason: TooLarge, field: "current size"},
		{name: "vhd 0 bytes", file: slices.Concat(make([]byte, 512), vhdFooterFor(0, 2, "win ", 0)), format: "VHD", reason: Damaged, field: "current size"},
		{name: "vhd header at 2^63", file: slices.Concat(make([]byte, 512), vhdFooterFor(512, 3, "win ", 1<<63)), format: "VHD", reason: Damaged, field: "dynamic header"},
		{name: "vhd fixed, only its footer", file: vhdFooterFor(512, 2, "win ", 0), format: "VHD", reason: Damaged, field: "current size"},

		{name: "vhdx HasParent", file: changedVHDX(func(p []byte) { p[vhdxTestMetadata+65536+4] |= 2 }), format: "VHDX", reason: RefersElsewhere, field: "HasParent"},
		{name: "vhdx parent locator", file: changedVHDX(func(p []byte) { putGUID(p[vhdxTestMetadata+32+2*32:], itemParentLocator) }), format: "VHDX", reason: RefersElsewhere, field: "parent locator"},
		{name: "vhdx block size 0", file: changedVHDX(func(p []byte) { clear(p[vhdxTestMetadata+65536:][:4]) }), format: "VHDX", reason: Damaged, field: "block size"},
		{name: "vhdx block size 2^31", file: changedVHDX(func(p []byte) { le.PutUint32(p[vhdxTestMetadata+65536:], 1<<31) }), format: "VHDX", reason: Damaged, field: "block size"},
		{name: "vhdx size 2^63", file: changedVHDX(func(p []byte) { le.PutUint64(p[vhdxTestMetadata+65536+8:], 1<<63) }), format: "VHDX", reason: TooLarge, field: "virtual disk size"},
		{name: "vhdx size over BAT", file: changedVHDX(func(p []byte) { le.PutUint64(p[vhdxTestMetadata+65536+8:], 1<<40) }), format: "VHDX", reason: Damaged, field: "BAT"},
		{name: "vhdx sectors of 0 bytes", file: changedVHDX(func(p []byte) { clear(p[vhdxTestMetadata+65536+32:][:4]) }), format: "VHDX", reason: Damaged, field: "logical sector"},
		{name: "vhdx item beyond the region", file: changedVHDX(func(p []byte) { le.PutUint32(p[vhdxTestMetadata+32+16:], math.MaxUint32-3) }), format: "VHDX", reason: Damaged, field: "metadata item"},
		{name: "vhdx item twice", file: changedVHDX(func(p []byte) { putGUID(p[vhdxTestMetadata+32+32:], itemFileParameters) }), format: "VHDX", reason: Damaged, field: "metadata item"},
		{name: "vhdx item missing", file: changedVHDX(func(p []byte) { p[vhdxTestMetadata+10] = 2 }), format: "VHDX", reason: Damaged, field: "metadata"},
		{name: "vhdx unknown required item", file: changedVHDX(func(p []byte) { p[vhdxTestMetadata+32+2*32] ^= 1 }), format: "VHDX", reason: Unsupported, field: "metadata item"},
		{name: "vhdx 65535 items", file: changedVHDX(func(p []byte) { le.PutUint16(p[vhdxTestMetadata+10:], math.MaxUint16) }), format: "VHDX", reason: Damaged, field: "metadata"},
		{name: "vhdx unknown required region", file: changedVHDX(func(p []byte) { p[192<<10+16] ^= 1 }), format: "VHDX", reason: Unsupported, field: "region"},
		{name: "vhdx region at 2^63", file: changedVHDX(func(p []byte) {
			le.PutUint64(p[192<<10+32:], 1<<63)
			le.PutUint64(p[256<<10+32:], 1<<63)
		}), format: "VHDX", reason: Damaged, field: "region"},
		{name: "vhdx 2^32-1 regions", file: changedVHDX(func(p []byte) {
			le.PutUint32(p[192<<10+8:], math.MaxUint32)
			le.PutUint32(p[256<<10+8:], math.MaxUint32)
		}), format: "VHDX", reason: Damaged, field: "region"},
		{name: "vhdx no sound header", file: func() []byte {
			p := plainVHDX(guest, 512)
			p[64<<10+100], p[128<<10+100] = 1, 1
			return p
		}(), format: "VHDX", reason: Damaged, field: "header"},
		{name: "vhdx version 2", file: changedVHDX(func(p []byte) { p[128<<10+66] = 2 }), format: "VHDX", reason: Unsupported, field: "version"},
		{name: "vhdx block partly in a parent", file: changedVHDX(func(p []byte) { p[vhdxTestBAT] |= 7 }), format: "VHDX", reason: Damaged, field: "BAT entry", read: true},
		{name: "vhdx block at 2^44 MiB", file: changedVHDX(func(p []byte) { le.PutUint64(p[vhdxTestBAT:], math.MaxUint64&^0xfffff|6) }), format: "VHDX", reason: Damaged, field: "BAT entry", read: true},
		{name: "vhdx block beyond the file", file: changedVHDX(func(p []byte) { le.PutUint64(p[vhdxTestBAT:], 1<<40|6) }), format: "VHDX", reason: Damaged, field: "block", read: true},
		{name: "vhdx block at 0", file: changedVHDX(func(p []byte) { le.PutUint64(p[vhdxTestBAT:], 6) }), format: "VHDX", reason: Damaged, field: "BAT entry", read: true},

		{name: "ova ..", file: ova(ovf("a.vmdk"), tarFile{"../a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "member"},
		{name: "ova absolute", file: ova(ovf("a.vmdk"), tarFile{"/etc/passwd", esx}), format: "OVA", reason: RefersElsewhere, field: "member"},
		{name: "ova .. inside", file: ova(ovf("a.vmdk"), tarFile{"x/../../a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "member"},
		{name: "ova backslash", file: ova(ovf("a.vmdk"), tarFile{`..\a.vmdk`, esx}), format: "OVA", reason: RefersElsewhere, field: "member"},
		{name: "ova href ..", file: ova(ovf("../a.vmdk"), tarFile{"a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "href"},
		{name: "ova href http", file: ova(ovf("http://localhost/a.vmdk"), tarFile{"a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "href"},
		{name: "ova disk missing", file: ova(ovf("b.vmdk"), tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "b.vmdk"},
		{name: "ova chunked", file: ova(tarFile{"a.ovf", bytes.Replace(vmwareOVF("a.vmdk"), []byte("ovf:size"), []byte(`ovf:chunkSize="7" ovf:size`), 1)}, tarFile{"a.vmdk.000000000", esx}), format: "OVA", reason: Chunked, field: "chunkSize"},
		{name: "ova gzip", file: ova(tarFile{"a.ovf", bytes.Replace(vmwareOVF("a.vmdk"), []byte("ovf:size"), []byte(`ovf:compression="gzip" ovf:size`), 1)}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Unsupported, field: "compression"},
		{name: "ova parentRef", file: ova(tarFile{"a.ovf", bytes.Replace(vmwareOVF("a.vmdk"), []byte("ovf:fileRef"), []byte(`ovf:parentRef="x" ovf:fileRef`), 1)}, tarFile{"a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "parentRef"},
		{name: "ova two machines", file: ova(tarFile{"a.ovf", bytes.Replace(vmwareOVF("a.vmdk"), []byte("</Envelope>"), []byte("<VirtualSystem/></Envelope>"), 1)}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Unsupported, field: "VirtualSystemCollection"},
		{name: "ova two OVFs", file: ova(ovf("a.vmdk"), tarFile{"b.ovf", vmwareOVF("a.vmdk")}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Unsupported, field: "OVF descriptor"},
		{name: "ova no OVF", file: ova(tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "OVF descriptor"},
		{name: "ova twice the same name", file: ova(ovf("a.vmdk"), tarFile{"a.vmdk", esx}, tarFile{"./a.vmdk", esx}), format: "OVA", reason: Damaged, field: "a.vmdk"},
		{name: "ova not XML", file: ova(tarFile{"a.ovf", []byte("hello")}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "OVF descriptor"},
		{name: "ova deep XML", file: ova(tarFile{"a.ovf", bytes.Repeat([]byte("<a>"), 300_000)}), format: "OVA", reason: Damaged, field: "OVF descriptor"},
		{name: "ova XML of 5 MiB", file: ova(tarFile{"a.ovf", bytes.Repeat([]byte(" "), 5<<20)}), format: "OVA", reason: Damaged, field: "OVF descriptor"},
		{name: "ova in UTF-16", file: ova(tarFile{"a.ovf", []byte(`<?xml version="1.0" encoding="UTF-16"?><Envelope/>`)}), format: "OVA", reason: Damaged, field: "OVF descriptor"},
		{name: "ova in an ova", file: ova(ovf("b.ova"), tarFile{"b.ova", ova(ovf("a.vmdk"), tarFile{"a.vmdk", esx})}), format: "OVA", reason: Unsupported, field: "b.ova"},
		{name: "ova with an overlay", file: ova(ovf("a.qcow2"), tarFile{"a.qcow2", backing}), format: "QCOW2", reason: RefersElsewhere, field: "a.qcow2: backing file"},
		{name: "ova flat extent outside", file: ova(ovf("a.vmdk"), tarFile{"a.vmdk", []byte("# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 4 FLAT \"/etc/passwd\" 0\n")}), format: "VMDK", reason: RefersElsewhere, field: "a.vmdk: extent"},
		{name: "ova manifest incomplete", file: ova(ovf("a.vmdk"), tarFile{"a.mf", manifestOf("SHA256", ovf("a.vmdk"))}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "manifest"},
		{name: "ova manifest of MD5", file: ova(ovf("a.vmdk"), tarFile{"a.mf", []byte("MD5(a.ovf)= d41d8cd98f00b204e9800998ecf8427e\n")}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Unsupported, field: "manifest"},
		{name: "ova manifest names ../b", file: ova(ovf("a.vmdk"), tarFile{"a.mf", manifestOf("SHA1", tarFile{"../b", nil})}, tarFile{"a.vmdk", esx}), format: "OVA", reason: RefersElsewhere, field: "manifest"},
		{name: "ova manifest names another file", file: ova(ovf("a.vmdk"), tarFile{"a.mf", manifestOf("SHA1", tarFile{"b", nil})}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "manifest"},
		{name: "ova manifest of words", file: ova(ovf("a.vmdk"), tarFile{"a.mf", []byte("SHA1(a.ovf)= zz\n")}, tarFile{"a.vmdk", esx}), format: "OVA", reason: Damaged, field: "manifest"},
		{name: "ova cut inside a disk", file: ova(ovf("a.vmdk"), tarFile{"a.vmdk", esx})[:len(esx)/2], format: "OVA", reason: Damaged, field: "a.vmdk"},
		{name: "ova with a link", file: linkOVA(t), format: "OVA", reason: Unsupported, field: "a.vmdk"},
		{name: "ova 5,000 members", file: ova(slices.Repeat([]tarFile{{"x", nil}}, 5000)...), format: "OVA", reason: Damaged, field: "tar header"},

		{name: "ovf disk ../a.vmdk", file: vmwareOVF("../a.vmdk"), format: "OVF", reason: RefersElsewhere, field: "href"},
		{name: "ovf disk /etc/passwd", file: vmwareOVF("/etc/passwd"), format: "OVF", reason: RefersElsewhere, field: "href"},
		{name: "ovf disk http", file: vmwareOVF("http://localhost/a.vmdk"), format: "OVF", reason: RefersElsewhere, field: "href"},
		{name: "ovf disk that did not come along", file: vmwareOVF("a.vmdk"), format: "OVF", reason: RefersElsewhere, field: "a.vmdk"},

		{name: "nothing", file: nil, format: "RAW", reason: NotADisk, field: "signature"},
		{name: "text", file: []byte("hello"), format: "RAW", reason: NotADisk, field: "signature"},
		{name: "zeros", file: make([]byte, 1<<20), format: "RAW", reason: NotADisk, field: "signature"},
		{name: "no bytes said to be raw", file: nil, opt: Options{Format: "RAW"}, format: "RAW", reason: Damaged, field: "file"},
		{name: "LUKS", file: append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 1024)...), format: "RAW", reason: Encrypted, field: "signature"},
		{name: "VDI", file: patched(make([]byte, 1024), 64, 0x7f, 0x10, 0xda, 0xbe), format: "RAW", reason: Unsupported, field: "signature"},
		{name: "gzip", file: []byte("\x1f\x8b\x08"), format: "GZIP", reason: Unsupported, field: "compression"},
		{name: "xz", file: []byte(xzMagic), format: "XZ", reason: Unsupported, field: "compression"},
		{name: "ISO for USB sticks", file: patched(patched(make([]byte, 40<<10), 510, 0x55, 0xaa), 0x8001, []byte("CD001")...), format: "RAW", reason: Unsupported, field: "signature"},
		{name: "said VMDK, is qcow2", file: q, opt: Options{Format: "VMDK"}, format: "QCOW2", reason: NotADisk, field: "format"},
		{name: "said VHD, is nothing", file: make([]byte, 4096), opt: Options{Format: "VHD"}, format: "VHD", reason: NotADisk, field: "signature"},
		{name: "mbr EBR loop to itself", file: extendedMBR([2]uint32{0, 10}, [2]uint32{10, 10}), format: "MBR", reason: Damaged, field: "extended boot record", table: true},
		{name: "mbr EBR loop of two", file: extendedMBR([2]uint32{0, 10}, [2]uint32{10, 20}, [2]uint32{20, 10}), format: "MBR", reason: Damaged, field: "extended boot record", table: true},
		{name: "mbr EBR at 2^32-1", file: extendedMBR([2]uint32{0, math.MaxUint32}), format: "MBR", reason: Damaged, field: "extended boot record", table: true},
		{name: "mbr EBR without signature", file: extendedMBR(), format: "MBR", reason: Damaged, field: "extended boot record", table: true},
		{name: "mbr 1,000 EBRs", file: extendedMBR(chainOfEBRs(1000)...), format: "MBR", reason: Damaged, field: "extended boot record", table: true},
		{name: "gpt both headers gone", file: changedGPT(0, []byte("gone")), format: "GPT", reason: Damaged, field: "header", table: true},
		{name: "gpt 2^32-1 entries", file: changedGPT(80, le32(math.MaxUint32)), format: "GPT", reason: Damaged, field: "entries", table: true},
		{name: "gpt entries of 2^31 bytes", file: changedGPT(84, le32(1<<31)), format: "GPT", reason: Damaged, field: "entries", table: true},
		{name: "gpt entries at 2^63", file: changedGPT(72, le64(1<<63)), format: "GPT", reason: Damaged, field: "entries", table: true},
		{name: "gpt header of 2^32-1 bytes", file: changedGPT(12, le32(math.MaxUint32)), format: "GPT", reason: Damaged, field: "header length", table: true},
		{name: "gpt in an ESXi stream, entries of 0 bytes", file: streamVMDK(changedGPT(84, le32(0)), esxi), format: "GPT", reason: Damaged, field: "entries", table: true},
		{name: "raw over policy", file: guest, opt: Options{MaxSize: 512}, format: "RAW", reason: TooLarge, field: "file"},
	}
}

// textVMDK is a descriptor with extents, and nothing behind it.
func textVMDK(extents string) []byte {
	return []byte("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n" + extents + "\n")
}

// extendedMBR is a disk with an extended partition, whose records are pairs of sectors in it: where one is, and where it says that
// the next one is.
func extendedMBR(records ...[2]uint32) []byte {
	p := make([]byte, 4096*512)
	putMBR(p, mbrRow{0x80, 7, 64, 100}, mbrRow{0, 5, 1000, 2000})
	for _, r := range records {
		putMBR(p[(1000+r[0])*512:], mbrRow{0, 7, 1, 1}, mbrRow{0, 5, r[1], 1})
	}
	return p
}

// chainOfEBRs are n records one behind the other.
func chainOfEBRs(n uint32) (records [][2]uint32) {
	for i := range n {
		records = append(records, [2]uint32{i, i + 1})
	}
	return records
}

// changedGPT is a disk in whose both GPT headers b is at byte at; the checksums are right for it, as far as they can be.
func changedGPT(at int, b []byte) []byte {
	p := gptDisk(1024, 512, windowsRows...)
	for _, header := range []int{512, 1023 * 512} {
		copy(p[header+at:], b)
		mendGPT(p, int64(header), 512)
	}
	return p
}

// linkOVA has a member that is a symbolic link to a file of the host.
func linkOVA(t testing.TB) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	ovf := vmwareOVF("a.vmdk")
	err := w.WriteHeader(&tar.Header{Name: "a.ovf", Size: int64(len(ovf)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR})
	if err == nil {
		_, err = w.Write(ovf)
	}
	if err == nil {
		err = w.WriteHeader(&tar.Header{Name: "a.vmdk", Linkname: "/etc/passwd", Typeflag: tar.TypeSymlink, Format: tar.FormatUSTAR})
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// refusal is what the file is refused with, at the point at which it shall be.
func (h *hostileFile) refusal(t testing.TB) error {
	e, err := Open(bytes.NewReader(h.file), h.opt)
	if !h.read && !h.table {
		return err
	}
	if err != nil {
		t.Fatalf("should open, and be refused later: %v", err)
	}
	_, err = e.Disks[0].ReadAt(make([]byte, 65536), 0)
	if h.read {
		return err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("should be read, and its partition table be refused: %v", err)
	}
	_, err = Partitions(e.Disks[0])
	return err
}

func TestHostileFilesAreRefusedByName(t *testing.T) {
	for _, h := range hostileFiles(t) {
		t.Run(h.name, func(t *testing.T) {
			hostile.Bounded(t, int64(len(h.file)), func() {
				wantRefusal(t, h.refusal(t), h.format, h.reason, h.field)
			})
		})
	}
}

// A raw disk may begin like anything: what the user says holds, with a warning.
func TestRawIsReadAsTheUserSays(t *testing.T) {
	guest := guestDisk(1<<20, 1)
	for _, file := range [][]byte{plainQCOW2(guest), streamVMDK(guest, esxi), dynamicVHD(guest, 3), plainVHDX(guest, 512),
		writeTar(t, tar.FormatUSTAR, tarFile{"a.ovf", nil})} {
		found, _ := Open(bytes.NewReader(file), Options{})
		e, err := Open(bytes.NewReader(file), Options{Format: "raw"})
		if err != nil {
			t.Fatal(err)
		}
		if e.Format != "RAW" || len(e.Warnings) == 0 || found != nil && !strings.Contains(e.Warnings[0], found.Format) {
			t.Errorf("%s, warnings %q", e.Format, e.Warnings)
		}
		equalImage(t, e.Disks[0], file)
	}
	// Without a mark it is raw only when that is said.
	zeros := make([]byte, 1000)
	e, err := Open(bytes.NewReader(zeros), Options{Format: "RAW"})
	if err != nil || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], "cut off") {
		t.Fatalf("%v, %+v", err, e)
	}
	equalImage(t, e.Disks[0], zeros)
}

func TestOptionsAreChecked(t *testing.T) {
	for _, opt := range []Options{{Format: "VDI"}, {MaxSize: -1}} {
		_, err := Open(bytes.NewReader(guestDisk(512, 1)), opt)
		if r := new(Refusal); err == nil || errors.As(err, &r) {
			t.Errorf("%+v: %v, want an error that is no Refusal", opt, err)
		}
	}
}
