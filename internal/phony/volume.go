package phony

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode/utf16"
)

// volume is an NTFS volume fresh from mkntfs, into which files are put. Everything is kept in memory until save, which
// writes each structure once.
type volume struct {
	disk       *os.File
	start      int64 // of the volume on the disk, bytes
	clusters   int64
	recordSize int
	mftRuns    []run
	mirror     int64 // LCN of $MFTMirr
	system     map[uint64]*record
	records    uint64 // that the $MFT has
	bitmap     []byte // $Bitmap
	upcase     []uint16
	cursor     int64 // where the search for free clusters goes on
	filetime   uint64
}

const clusterBytes = indexBlock

func openVolume(disk *os.File, start int64, filetime uint64) (*volume, error) {
	boot := make([]byte, sectorBytes)
	if _, err := disk.ReadAt(boot, start); err != nil {
		return nil, fmt.Errorf("boot sector: %w", err)
	}
	if string(boot[3:11]) != "NTFS    " || le.Uint16(boot[0xB:]) != sectorBytes || int(boot[0xD]) != clusterBytes/sectorBytes || int8(boot[0x40]) != -10 {
		return nil, fmt.Errorf("boot sector: not an NTFS volume with clusters of %d and records of 1024 bytes", clusterBytes)
	}
	v := &volume{
		disk: disk, start: start, recordSize: 1024, filetime: filetime,
		clusters: int64(le.Uint64(boot[0x28:])) / (clusterBytes / sectorBytes),
		mirror:   int64(le.Uint64(boot[0x38:])),
		mftRuns:  []run{{int64(le.Uint64(boot[0x30:])), 1}},
		system:   map[uint64]*record{},
	}
	mft, err := v.readRecord(recordMFT)
	if err != nil {
		return nil, err
	}
	data := mft.find(attrData, "")
	if data == nil || data.resident {
		return nil, fmt.Errorf("MFT record 0: no $DATA")
	}
	v.mftRuns = data.runs
	v.records = uint64(data.size) / uint64(v.recordSize)
	for n := range v.records {
		r, err := v.readRecord(n)
		if err != nil {
			return nil, err
		}
		v.system[n] = r
	}
	for _, n := range []uint64{recordMFT, recordLogFile, recordVolume, recordRoot, recordBitmap, recordUpCase} {
		if r := v.system[n]; r == nil || r.find(attrFileName, "") == nil {
			return nil, fmt.Errorf("MFT record %d: no $FILE_NAME", n)
		}
	}
	if v.bitmap, err = v.readData(recordBitmap); err != nil {
		return nil, err
	}
	if int64(len(v.bitmap))*8 < v.clusters {
		return nil, fmt.Errorf("$Bitmap: %d bytes for %d clusters", len(v.bitmap), v.clusters)
	}
	upcase, err := v.readData(recordUpCase)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(upcase); i += 2 {
		v.upcase = append(v.upcase, le.Uint16(upcase[i:]))
	}
	return v, nil
}

func (v *volume) at(lcn int64) int64 { return v.start + lcn*clusterBytes }

func (v *volume) readRecord(n uint64) (*record, error) {
	b := make([]byte, v.recordSize)
	off, err := v.recordOffset(n)
	if err != nil {
		return nil, err
	}
	if _, err := v.disk.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("MFT record %d: %w", n, err)
	}
	r, err := decodeRecord(b)
	if err != nil {
		return nil, fmt.Errorf("MFT record %d: %w", n, err)
	}
	r.number = n // mkntfs leaves it out of the records that it keeps free
	return r, nil
}

func (v *volume) recordOffset(n uint64) (int64, error) {
	off := int64(n) * int64(v.recordSize)
	for _, r := range v.mftRuns {
		if off < r.length*clusterBytes {
			return v.at(r.lcn) + off, nil
		}
		off -= r.length * clusterBytes
	}
	return 0, fmt.Errorf("MFT record %d lies outside the $MFT", n)
}

// readData reads a system file's whole $DATA.
func (v *volume) readData(n uint64) ([]byte, error) {
	a := v.system[n].find(attrData, "")
	if a == nil {
		return nil, fmt.Errorf("MFT record %d: no $DATA", n)
	}
	if a.resident {
		return a.value, nil
	}
	const most = 64 << 20 // a $Bitmap of 2 TiB
	if a.size < 0 || a.size > most {
		return nil, fmt.Errorf("MFT record %d: $DATA of %d bytes", n, a.size)
	}
	b := make([]byte, a.size)
	return b, v.transfer(a.runs, b, v.disk.ReadAt)
}

// transfer moves b from or to the clusters of runs.
func (v *volume) transfer(runs []run, b []byte, move func([]byte, int64) (int, error)) error {
	for _, r := range runs {
		n := min(int64(len(b)), r.length*clusterBytes)
		if n == 0 {
			return nil
		}
		if _, err := move(b[:n], v.at(r.lcn)); err != nil {
			return fmt.Errorf("cluster %d: %w", r.lcn, err)
		}
		b = b[n:]
	}
	if len(b) > 0 {
		return fmt.Errorf("runs end %d bytes early", len(b))
	}
	return nil
}

func (v *volume) used(lcn int64) bool { return v.bitmap[lcn/8]&(1<<(lcn%8)) != 0 }

func (v *volume) mark(r run, used bool) {
	for c := r.lcn; c < r.lcn+r.length; c++ {
		if used {
			v.bitmap[c/8] |= 1 << (c % 8)
		} else {
			v.bitmap[c/8] &^= 1 << (c % 8)
		}
	}
}

// allocate takes n clusters, in as few runs as lie ahead of the cursor.
func (v *volume) allocate(n int64) ([]run, error) {
	var runs []run
	wanted := n
	for scanned := int64(0); n > 0 && scanned < v.clusters; {
		if v.cursor >= v.clusters {
			v.cursor = 0
		}
		if v.cursor%8 == 0 && v.bitmap[v.cursor/8] == 0xFF {
			v.cursor, scanned = v.cursor+8, scanned+8
			continue
		}
		if v.used(v.cursor) {
			v.cursor, scanned = v.cursor+1, scanned+1
			continue
		}
		r := run{lcn: v.cursor}
		for r.length < n && r.lcn+r.length < v.clusters && !v.used(r.lcn+r.length) {
			r.length++
		}
		v.mark(r, true)
		runs = append(runs, r)
		n -= r.length
		v.cursor, scanned = r.lcn+r.length, scanned+r.length
	}
	if n > 0 {
		return nil, fmt.Errorf("the volume has no %d free clusters", wanted)
	}
	return runs, nil
}

// store makes a non-resident attribute: size bytes allocated, of which b are written.
func (v *volume) store(typ uint32, name string, b []byte, size int64) (attribute, error) {
	size = max(size, int64(len(b)))
	clusters := (size + clusterBytes - 1) / clusterBytes
	runs, err := v.allocate(clusters)
	if err != nil {
		return attribute{}, err
	}
	a := attribute{typ: typ, name: name, runs: runs, allocated: clusters * clusterBytes, size: size, valid: size}
	return a, v.transfer(runs, b, v.disk.WriteAt)
}

// save puts the tree on the volume and closes its books: $MFT, $MFTMirr, $Bitmap.
func (v *volume) save(root *node) error {
	v.cursor = v.clusters / 8 // behind the zone that NTFS keeps for the $MFT
	next := uint64(firstUserRecord)
	var all []*node
	var number func(n *node)
	number = func(n *node) {
		for _, c := range n.sorted(v.upcase) {
			c.record = record{number: next, sequence: 1, links: 1, flags: recordInUse}
			next++
			all = append(all, c)
			number(c)
		}
	}
	number(root)
	if err := v.growMFT(next); err != nil {
		return err
	}
	v.shrinkLog()
	rootRecord := v.system[recordRoot]
	if err := v.stamp(); err != nil {
		return err
	}
	for _, n := range all {
		if err := v.saveFile(n); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	if err := v.saveFolders(root, rootRecord.reference()); err != nil {
		return err
	}
	if err := v.saveRoot(root, rootRecord); err != nil {
		return err
	}
	for _, n := range all {
		if err := v.writeRecord(&n.record); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return v.close()
}

// saveFile gives a file its $DATA, or a folder what every record has; names and indexes come when all sizes are known.
func (v *volume) saveFile(n *node) error {
	r := &n.record
	flags := n.flags
	if !n.folder {
		flags |= fileArchive
	}
	if n.junction != "" {
		flags |= fileReparsePoint
	}
	r.set(standardInformation(v.filetime, flags))
	if n.folder {
		r.flags |= recordDirectory
		if n.junction != "" {
			r.set(attribute{typ: attrReparsePoint, resident: true, value: mountPoint(n.junction)})
		}
		return nil
	}
	// The name is accounted for before the data: what is left of the record can hold a small file.
	name := fileName{name: utf16.Encode([]rune(n.name))}
	spare := attribute{typ: attrFileName, resident: true, value: name.encode()}
	data := attribute{typ: attrData, resident: true, value: n.data}
	if n.size <= int64(len(n.data)) && data.length()+spare.length() <= r.free(v.recordSize) {
		r.set(data)
		n.size = int64(len(n.data))
		n.allocated = int64(align8(len(n.data)))
		return nil
	}
	data, err := v.store(attrData, "", n.data, n.size)
	if err != nil {
		return err
	}
	n.size, n.allocated = data.size, data.allocated
	r.set(data)
	return nil
}

// saveFolders names what is in a folder and builds the indexes of the folders in it, from the leaves up.
func (v *volume) saveFolders(n *node, parent uint64) error {
	for _, c := range n.sorted(v.upcase) {
		f := c.fileName(parent, v.filetime)
		c.record.set(attribute{typ: attrFileName, resident: true, indexed: true, value: f.encode()})
		if !c.folder {
			continue
		}
		if err := v.saveFolders(c, c.record.reference()); err != nil {
			return err
		}
		if err := v.setIndex(&c.record, v.entries(c, c.record.reference())); err != nil {
			return fmt.Errorf("folder %s: %w", c.name, err)
		}
	}
	return nil
}

func (n *node) fileName(parent, filetime uint64) fileName {
	f := fileName{parent: parent, filetime: filetime, allocated: n.allocated, size: n.size, flags: n.flags, space: 1, name: utf16.Encode([]rune(n.name))}
	if dosName(n.name) {
		f.space = 3
	}
	if n.folder {
		f.flags |= fileHasI30
	} else {
		f.flags |= fileArchive
	}
	if n.junction != "" {
		f.flags |= fileReparsePoint
		f.reparse = reparseMountPoint
	}
	return f
}

func (v *volume) entries(n *node, parent uint64) []indexEntry {
	var list []indexEntry
	for _, c := range n.sorted(v.upcase) {
		f := c.fileName(parent, v.filetime)
		list = append(list, indexEntry{ref: c.record.reference(), key: f.encode(), name: f.name})
	}
	return list
}

// setIndex writes a folder's $I30 into its record and, when large, into clusters of its own.
func (v *volume) setIndex(r *record, entries []indexEntry) error {
	// A resident root may fill the record; a large one leaves room for $INDEX_ALLOCATION and $BITMAP.
	const name, header, large = "$I30", 0x18 + 8, 0x40 + 8 + 16 + 0x18 + 8 + 16
	r.set(attribute{typ: attrIndexRoot, name: name, resident: true})
	room := r.free(v.recordSize) &^ 7
	root, blocks, err := buildIndex(entries, room)
	if err != nil {
		return err
	}
	if blocks != nil {
		if root, blocks, err = buildIndex(entries, room-large-header); err != nil {
			return err
		}
	}
	r.set(attribute{typ: attrIndexRoot, name: name, resident: true, value: root})
	if blocks == nil {
		return nil
	}
	allocation, err := v.store(attrIndexAllocation, name, slices.Concat(blocks...), 0)
	if err != nil {
		return err
	}
	r.set(allocation)
	bits := make([]byte, align8((len(blocks)+7)/8))
	for i := range blocks {
		bits[i/8] |= 1 << (i % 8)
	}
	r.set(attribute{typ: attrBitmap, name: name, resident: true, value: bits})
	return nil
}

// saveRoot merges what mkntfs put into the root folder with ours.
func (v *volume) saveRoot(root *node, r *record) error {
	old, err := v.readIndex(r)
	if err != nil {
		return err
	}
	entries := v.entries(root, r.reference())
	for _, e := range old {
		if root.children[strings.ToUpper(string(utf16.Decode(e.name)))] != nil {
			return fmt.Errorf("%s belongs to the file system", string(utf16.Decode(e.name)))
		}
		for i := range 4 {
			le.PutUint64(e.key[8+8*i:], v.filetime)
		}
		if n := e.ref & (1<<48 - 1); n == recordMFT || n == recordLogFile {
			e.key = slices.Clone(v.system[n].find(attrFileName, "").value) // its size has changed
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b indexEntry) int { return compareNames(a.name, b.name, v.upcase) })
	if a := r.find(attrIndexAllocation, "$I30"); a != nil {
		for _, old := range a.runs {
			v.mark(old, false)
		}
	}
	r.attrs = slices.DeleteFunc(r.attrs, func(a attribute) bool { return a.name == "$I30" })
	return v.setIndex(r, entries)
}

func (v *volume) readIndex(r *record) ([]indexEntry, error) {
	root := r.find(attrIndexRoot, "$I30")
	if root == nil {
		return nil, fmt.Errorf("MFT record %d: no $INDEX_ROOT", r.number)
	}
	return parseIndex(root.value, func(vcn int64) ([]byte, error) {
		a := r.find(attrIndexAllocation, "$I30")
		b := make([]byte, indexBlock)
		if a == nil || vcn != 0 || len(a.runs) == 0 {
			return nil, fmt.Errorf("MFT record %d: index block %d of an mkntfs volume", r.number, vcn)
		}
		return b, v.transfer(a.runs, b, v.disk.ReadAt)
	})
}

// stamp gives the file system's own files the machine's time, so that the same text always makes the same volume.
func (v *volume) stamp() error {
	for _, r := range v.system {
		if r.flags&recordInUse == 0 {
			continue
		}
		for i := range r.attrs {
			at := map[uint32]int{attrStandardInformation: 0, attrFileName: 8}
			if off, ok := at[r.attrs[i].typ]; ok && len(r.attrs[i].value) >= off+32 {
				for t := range 4 {
					le.PutUint64(r.attrs[i].value[off+8*t:], v.filetime)
				}
			}
		}
	}
	extend := v.system[recordExtend]
	if extend == nil || extend.find(attrIndexRoot, "$I30") == nil {
		return nil
	}
	entries, err := v.readIndex(extend)
	if err != nil {
		return err
	}
	for _, e := range entries {
		for t := range 4 {
			le.PutUint64(e.key[8+8*t:], v.filetime)
		}
	}
	return v.setIndex(extend, entries)
}

// growMFT makes room for records up to the given count and marks them in the $MFT's own bitmap.
func (v *volume) growMFT(records uint64) error {
	mft := v.system[recordMFT]
	data, bits := mft.find(attrData, ""), mft.find(attrBitmap, "")
	perCluster := uint64(clusterBytes / v.recordSize)
	total := (records + perCluster - 1) / perCluster * perCluster
	if bits == nil || bits.resident || int64(total) > bits.allocated*8 {
		return fmt.Errorf("%d files are more than the $MFT bitmap of an mkntfs volume holds", records)
	}
	var have int64
	for _, r := range data.runs {
		have += r.length
	}
	cursor := v.cursor
	v.cursor = data.runs[len(data.runs)-1].lcn
	more, err := v.allocate(int64(total/perCluster) - have)
	if err != nil {
		return fmt.Errorf("$MFT: %w", err)
	}
	v.cursor = cursor
	for _, r := range more {
		if last := &data.runs[len(data.runs)-1]; last.lcn+last.length == r.lcn {
			last.length += r.length
		} else {
			data.runs = append(data.runs, r)
		}
	}
	v.mftRuns = data.runs
	data.size = int64(total) * int64(v.recordSize)
	data.valid, data.allocated = data.size, data.size
	mft.resize(data.allocated, data.size)
	for n := v.records; n < total; n++ {
		if n >= firstUserRecord && n < records {
			continue
		}
		if err := v.writeRecord(&record{number: n, sequence: 1}); err != nil {
			return err
		}
	}
	used := make([]byte, align8(int(total+7)/8))
	old := make([]byte, bits.size)
	if err := v.transfer(bits.runs, old, v.disk.ReadAt); err != nil {
		return fmt.Errorf("$MFT bitmap: %w", err)
	}
	copy(used, old)
	for n := uint64(firstUserRecord); n < records; n++ {
		used[n/8] |= 1 << (n % 8)
	}
	bits.size, bits.valid = int64(len(used)), int64(len(used))
	v.records = total
	return v.transfer(bits.runs, used, v.disk.WriteAt)
}

func (v *volume) writeRecord(r *record) error {
	b, err := r.encode(v.recordSize)
	if err != nil {
		return err
	}
	off, err := v.recordOffset(r.number)
	if err != nil {
		return err
	}
	_, err = v.disk.WriteAt(b, off)
	return err
}

// close writes the system records, their mirror and $Bitmap.
func (v *volume) close() error {
	numbers := make([]uint64, 0, len(v.system))
	for n := range v.system {
		numbers = append(numbers, n)
	}
	slices.SortFunc(numbers, func(a, b uint64) int { return cmp.Compare(a, b) })
	for _, n := range numbers {
		if err := v.writeRecord(v.system[n]); err != nil {
			return err
		}
		if n > recordVolume {
			continue // $MFTMirr keeps the first four
		}
		b, err := v.system[n].encode(v.recordSize)
		if err != nil {
			return err
		}
		if _, err := v.disk.WriteAt(b, v.at(v.mirror)+int64(n)*int64(v.recordSize)); err != nil {
			return err
		}
	}
	return v.transfer(v.system[recordBitmap].find(attrData, "").runs, v.bitmap, v.disk.WriteAt)
}

// setSerial writes the volume serial number into the boot sector and its copy in the partition's last sector; mkntfs
// makes a random one.
func (v *volume) setSerial(serial uint64, size int64) error {
	b := le.AppendUint64(nil, serial)
	for _, at := range []int64{v.start, v.start + size - sectorBytes} {
		if _, err := v.disk.WriteAt(b, at+0x48); err != nil {
			return err
		}
	}
	return nil
}

// setDirty raises the flag by which Windows knows a volume that was not taken off cleanly.
func (v *volume) setDirty() error {
	const volumeInformation, flags = 0x70, 10
	a := v.system[recordVolume].find(volumeInformation, "")
	if a == nil || len(a.value) < flags+2 {
		return fmt.Errorf("MFT record %d: no $VOLUME_INFORMATION", recordVolume)
	}
	a.value[flags] |= 1
	return nil
}

// surplusLog are the clusters of the $LogFile beyond logBytes.
func (v *volume) surplusLog() []run {
	log := v.system[recordLogFile].find(attrData, "")
	if log == nil {
		return nil
	}
	var surplus []run
	keep := int64(logBytes / clusterBytes)
	for _, r := range log.runs {
		if r.length > keep {
			surplus = append(surplus, run{r.lcn + keep, r.length - keep})
		}
		keep = max(keep-r.length, 0)
	}
	return surplus
}

// shrinkLog takes the surplus out of the $LogFile's record and marks it free.
func (v *volume) shrinkLog() {
	surplus := v.surplusLog()
	if len(surplus) == 0 {
		return
	}
	r := v.system[recordLogFile]
	log := r.find(attrData, "")
	for _, s := range surplus {
		v.mark(s, false)
	}
	keep := int64(logBytes / clusterBytes)
	for i, part := range log.runs {
		if keep -= part.length; keep <= 0 {
			log.runs = log.runs[:i+1]
			log.runs[i].length += keep
			break
		}
	}
	log.allocated, log.size, log.valid = logBytes, logBytes, logBytes
	r.resize(log.allocated, log.size)
}

// resize writes an unnamed $DATA's size into the file's name, from where the root folder repeats it.
func (r *record) resize(allocated, size int64) {
	if name := r.find(attrFileName, ""); name != nil && len(name.value) >= 66 {
		le.PutUint64(name.value[0x28:], uint64(allocated))
		le.PutUint64(name.value[0x30:], uint64(size))
	}
}
