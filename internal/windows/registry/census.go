package registry

import "fmt"

// census finds out who uses which cell of a hive. In a hive that Windows wrote every cell in use has one owner, but for security
// descriptors, which keys share. In a stranger's hive two values may have one cell, and an edit of one would be an edit of the other.
type census struct {
	*Hive
	begins bitmap // a cell in use begins here
	owned  bitmap // it belongs to a key, list or value
	shared bitmap // it is a security descriptor
}

// bitmap has a bit for every 8 bytes of the hbins: cells begin at multiples of 8.
type bitmap []uint64

func newBitmap(bins uint32) bitmap { return make(bitmap, bins/8/64+1) }

func (b bitmap) has(off uint32) bool { return b[off/8/64]>>(off/8%64)&1 != 0 }
func (b bitmap) set(off uint32)      { b[off/8/64] |= 1 << (off / 8 % 64) }

// take reads the whole hive. Anything in it that makes no sense is an error.
func (c *census) take() (free []freeCell, err error) {
	if free, err = c.cells(); err != nil {
		return nil, err
	}
	if err := c.claim(c.base.root, "root key"); err != nil {
		return nil, err
	}
	root, err := c.key(c.base.root, none, 0)
	if err != nil {
		return nil, err
	}
	// Each key is claimed before it waits here, so that no more wait than the hive has cells.
	for waiting := []*key{root}; len(waiting) > 0; {
		k := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if err := c.rest(k); err != nil {
			return nil, err
		}
		err := k.eachSubkey(func(off uint32, _ string, _ []byte) (bool, error) {
			if err := c.claim(off, "key"); err != nil {
				return false, err
			}
			sub, err := c.key(off, k.off, k.depth+1)
			waiting = append(waiting, sub)
			return err == nil, err
		})
		if err != nil {
			return nil, err
		}
	}
	return free, nil
}

// cells goes from cell to cell, which must fill the hbins, and gives the free ones.
func (c *census) cells() (free []freeCell, err error) {
	for bin := int64(0); bin < int64(c.base.bins); {
		b, err := c.pages.read(baseSize+bin, binHeader)
		if err != nil {
			return nil, fmt.Errorf("hbin %#x: %w", bin, err)
		}
		size := int64(le.Uint32(b[8:]))
		if string(b[:4]) != "hbin" || int64(le.Uint32(b[4:])) != bin || size == 0 || size%pageSize != 0 || bin+size > int64(c.base.bins) {
			return nil, c.damage("hbin %#x: signature %q, offset %#x, size %#x", bin, b[:4], le.Uint32(b[4:]), size)
		}
		for at := bin + binHeader; at < bin+size; {
			b, err := c.pages.read(baseSize+at, cellHeader)
			if err != nil {
				return nil, fmt.Errorf("cell %#x: %w", at, err)
			}
			n := int64(int32(le.Uint32(b)))
			isFree := n > 0
			n = max(n, -n)
			if n < 8 || n%8 != 0 || at+n > bin+size {
				return nil, c.damage("cell %#x: size %d in an hbin that ends at %#x", at, n, bin+size)
			}
			if isFree {
				free = append(free, freeCell{uint32(at), n})
			} else {
				c.begins.set(uint32(at))
			}
			at += n
		}
		bin += size
	}
	return free, nil
}

// claim notes a cell's owner.
func (c *census) claim(off uint32, what string) error {
	switch {
	case off >= c.base.bins || off%8 != 0 || !c.begins.has(off):
		return c.damage("%s: no cell in use begins at %#x", what, off)
	case c.owned.has(off) || c.shared.has(off):
		return c.damage("%s: the cell %#x is used twice", what, off)
	}
	c.owned.set(off)
	return nil
}

// rest claims what belongs to a key, but for its subkeys.
func (c *census) rest(k *key) error {
	at, err := c.cell(k.off, "key")
	if err != nil {
		return err
	}
	b, err := at.read(0, keySize, "key")
	if err != nil {
		return err
	}
	if sk := le.Uint32(b[44:]); sk != none {
		if sk >= c.base.bins || sk%8 != 0 || !c.begins.has(sk) || c.owned.has(sk) {
			return c.damage("key %#x: no security descriptor begins at %#x", k.off, sk)
		}
		c.shared.set(sk)
	}
	if class, n := le.Uint32(b[48:]), le.Uint16(b[74:]); n > 0 && class != none {
		if err := c.claim(class, "key's class"); err != nil {
			return err
		}
	}
	if k.subkeys > 0 {
		if err := c.lists(k); err != nil {
			return err
		}
	}
	if k.flags&keyPredefined != 0 || k.values == 0 {
		return nil
	}
	if err := c.claim(k.valueSet, "list of values"); err != nil {
		return err
	}
	var bad error
	err = k.eachValue(func(v storedValue) bool {
		bad = c.claimValue(v)
		return bad == nil
	})
	return firstErr(bad, err)
}

// lists claims a key's lists of subkeys.
func (c *census) lists(k *key) error {
	if err := c.claim(k.list, "list of keys"); err != nil {
		return err
	}
	kind, entries, err := c.list(k.list)
	if err != nil || kind != "ri" {
		return err
	}
	for ; len(entries) > 0; entries = entries[4:] {
		if err := c.claim(le.Uint32(entries), "list of keys"); err != nil {
			return err
		}
	}
	return nil
}

func (c *census) claimValue(v storedValue) error {
	if err := c.claim(v.off, "value"); err != nil {
		return err
	}
	cells, err := c.dataCells(v)
	if err != nil {
		return err
	}
	for _, off := range cells {
		if err := c.claim(off, "value's data"); err != nil {
			return err
		}
	}
	return nil
}

// dataCells are the cells that hold a value's data: none, one, or the record, list and segments of long data.
func (h *Hive) dataCells(v storedValue) ([]uint32, error) {
	n := int64(v.size &^ resident)
	if v.size&resident != 0 {
		if n > 4 {
			return nil, h.damage("value %#x: %d bytes in place of its offset", v.off, n)
		}
		return nil, nil
	}
	if n == 0 {
		return nil, nil
	}
	if n > maxValue || n > h.limit {
		return nil, h.damage("value %#x: %d bytes of data in a hive of %#x", v.off, n, h.limit)
	}
	c, err := h.cell(v.data, "value's data")
	if err != nil {
		return nil, err
	}
	if n <= segmentSize || h.base.minor < 4 || c.size >= n {
		_, err := c.read(0, n, "value's data")
		return []uint32{v.data}, err
	}
	list, err := h.segments(c, n)
	if err != nil {
		return nil, err
	}
	cells := []uint32{v.data, list.off}
	count := (n + segmentSize - 1) / segmentSize
	b, err := list.read(0, 4*count, "list of segments")
	if err != nil {
		return nil, err
	}
	for ; len(b) > 0; b = b[4:] {
		part, err := h.cell(le.Uint32(b), "segment")
		if err != nil {
			return nil, err
		}
		if _, err := part.read(0, min(segmentSize, n), "segment"); err != nil {
			return nil, err
		}
		n -= segmentSize
		cells = append(cells, le.Uint32(b))
	}
	return cells, nil
}
