package disk

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ovf is what is wanted of an OVF descriptor (DMTF DSP0243, versions 1 and 2).
type ovf struct {
	disks    []string // files of the machine's disks, in the order in which its hardware has them
	files    []string // all files that it refers to
	hardware Hardware
	warnings []string
}

// ovfXML names the elements that are read; encoding/xml compares local names only, as VMware, VirtualBox and Microsoft
// bind different prefixes.
type ovfXML struct {
	XMLName xml.Name
	Files   []struct {
		ID          string `xml:"id,attr"`
		Href        string `xml:"href,attr"`
		Compression string `xml:"compression,attr"`
		ChunkSize   string `xml:"chunkSize,attr"`
	} `xml:"References>File"`
	Disks []struct {
		ID      string `xml:"diskId,attr"`
		FileRef string `xml:"fileRef,attr"`
		Parent  string `xml:"parentRef,attr"`
	} `xml:"DiskSection>Disk"`
	Systems    []ovfSystem `xml:"VirtualSystem"`
	Collection []struct{}  `xml:"VirtualSystemCollection"`
}

type ovfSystem struct {
	ID   string `xml:"id,attr"`
	Name string `xml:"Name"`
	OS   struct {
		ID     string `xml:"id,attr"`
		OSType string `xml:"osType,attr"`
		VBox   string `xml:"OSType"`
	} `xml:"OperatingSystemSection"`
	Hardware []struct {
		Items    []ovfItem `xml:"Item"`
		Storage  []ovfItem `xml:"StorageItem"`
		Ethernet []ovfItem `xml:"EthernetPortItem"`
		Config   []struct {
			Key   string `xml:"key,attr"`
			Value string `xml:"value,attr"`
		} `xml:"Config"`
	} `xml:"VirtualHardwareSection"`
	VBox struct {
		Firmware struct {
			Type string `xml:"type,attr"`
		} `xml:"Hardware>Firmware"`
	} `xml:"Machine"`
}

type ovfItem struct {
	ResourceType    string   `xml:"ResourceType"`
	Quantity        string   `xml:"VirtualQuantity"`
	AllocationUnits string   `xml:"AllocationUnits"`
	HostResource    []string `xml:"HostResource"`
}

// The CIM_ResourceAllocationSettingData.ResourceType values that are read.
const (
	cimProcessor = "3"
	cimMemory    = "4"
	cimEthernet  = "10"
	cimCD        = "15"
	cimDVD       = "16"
	cimDisk      = "17"
)

// parseOVF reads the descriptor, which begins at byte at of f.
func parseOVF(f *file, text []byte, at int64) (*ovf, error) {
	var x ovfXML
	raw := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))))
	raw.CharsetReader = func(charset string, r io.Reader) (io.Reader, error) {
		if strings.EqualFold(charset, "us-ascii") || strings.EqualFold(charset, "ascii") {
			return r, nil
		}
		return nil, fmt.Errorf("encoding %.40q: only UTF-8 is read", charset)
	}
	if err := xml.NewTokenDecoder(&shallow{raw: raw}).Decode(&x); err != nil {
		var syntax *xml.SyntaxError
		if errors.As(err, &syntax) {
			return nil, f.refuse(Damaged, "OVF descriptor", at, "line %d: %s", syntax.Line, syntax.Msg)
		}
		return nil, f.refuse(Damaged, "OVF descriptor", at, "%v", err)
	}
	bad := func(reason Reason, field, detail string, args ...any) error {
		return f.refuse(reason, field, at, detail, args...)
	}
	switch {
	case x.XMLName.Local != "Envelope":
		return nil, bad(Damaged, "OVF descriptor", "the document is a %.40q, not an Envelope", x.XMLName.Local)
	case len(x.Collection) > 0 || len(x.Systems) > 1:
		return nil, bad(Unsupported, "OVF VirtualSystemCollection", "the export has several machines; export one")
	case len(x.Systems) == 0:
		return nil, bad(Damaged, "OVF VirtualSystem", "the descriptor describes no machine")
	}
	sys := &x.Systems[0]

	o := &ovf{}
	hrefs := map[string]string{} // File id -> href
	for _, file := range x.Files {
		switch {
		case file.ChunkSize != "":
			return nil, bad(Chunked, "OVF File chunkSize", "%.80q is cut into chunk files; export it in one piece", file.Href)
		case file.Compression != "" && file.Compression != "identity":
			return nil, bad(Unsupported, "OVF File compression", "%.80q is compressed (%.20q)", file.Href, file.Compression)
		case !localName(strings.TrimPrefix(file.Href, "./")):
			return nil, bad(RefersElsewhere, "OVF File href", "%.80q leads out of the OVA", file.Href)
		}
		if _, twice := hrefs[file.ID]; twice {
			return nil, bad(Damaged, "OVF File id", "%.80q is there twice", file.ID)
		}
		hrefs[file.ID] = strings.TrimPrefix(file.Href, "./")
		o.files = append(o.files, hrefs[file.ID])
	}
	diskFiles := map[string]string{} // Disk diskId -> href, "" for a disk that the hypervisor makes empty
	for _, d := range x.Disks {
		if d.Parent != "" {
			return nil, bad(RefersElsewhere, "OVF Disk parentRef", "disk %.80q is a snapshot of another", d.ID)
		}
		href, ok := hrefs[d.FileRef]
		if d.FileRef != "" && !ok {
			return nil, bad(Damaged, "OVF Disk fileRef", "disk %.80q is in file %.80q, which is not among the References", d.ID, d.FileRef)
		}
		if _, twice := diskFiles[d.ID]; twice {
			return nil, bad(Damaged, "OVF Disk diskId", "%.80q is there twice", d.ID)
		}
		diskFiles[d.ID] = href
	}

	o.hardware = Hardware{Name: sys.Name, OSType: sys.OS.OSType}
	if o.hardware.Name == "" {
		o.hardware.Name = sys.ID
	}
	if o.hardware.OSType == "" {
		o.hardware.OSType = sys.OS.VBox
	}
	if o.hardware.OSType == "" {
		o.hardware.OSType = sys.OS.ID
	}
	// What a HostResource names: "ovf:/disk/vmdisk1" a Disk, "ovf:/file/file2" a File.
	named := func(item ovfItem, kind string) (string, bool) {
		for _, h := range item.HostResource {
			h = strings.TrimPrefix(strings.TrimSpace(h), "ovf:")
			if id, ok := strings.CutPrefix(h, "/"+kind+"/"); ok {
				return id, true
			}
		}
		return "", false
	}
	use := func(href string) {
		if href != "" && !slices.Contains(o.disks, href) {
			o.disks = append(o.disks, href)
		}
	}
	for _, section := range sys.Hardware {
		for _, item := range slices.Concat(section.Items, section.Storage, section.Ethernet) {
			switch strings.TrimSpace(item.ResourceType) {
			case cimProcessor:
				if n, err := strconv.Atoi(strings.TrimSpace(item.Quantity)); err == nil && n > 0 {
					o.hardware.VCPUs = n
				}
			case cimMemory:
				o.hardware.MemoryMB = memoryMB(item)
			case cimEthernet:
				o.hardware.NICs++
			case cimCD, cimDVD:
				o.hardware.CDROMs++
				if id, ok := named(item, "file"); ok && hrefs[id] != "" {
					o.hardware.CDImages = append(o.hardware.CDImages, hrefs[id])
				} else if id, ok := named(item, "disk"); ok && diskFiles[id] != "" {
					o.hardware.CDImages = append(o.hardware.CDImages, diskFiles[id])
				}
			case cimDisk:
				if id, ok := named(item, "disk"); ok {
					href, ok := diskFiles[id]
					if !ok {
						return nil, bad(Damaged, "OVF HostResource", "disk %.80q is not in the DiskSection", id)
					}
					if href == "" {
						o.warnings = append(o.warnings, fmt.Sprintf("Disk %.80q of the machine was exported without a file: it is left out.", id))
					}
					use(href)
				} else if id, ok := named(item, "file"); ok {
					if hrefs[id] == "" {
						return nil, bad(Damaged, "OVF HostResource", "file %.80q is not among the References", id)
					}
					use(hrefs[id])
				}
			}
		}
		for _, c := range section.Config {
			if strings.EqualFold(c.Key, "firmware") {
				o.hardware.Firmware = firmware(c.Value)
			}
		}
	}
	if o.hardware.Firmware == "" {
		o.hardware.Firmware = firmware(sys.VBox.Firmware.Type)
	}
	for _, d := range x.Disks {
		if href := diskFiles[d.ID]; !slices.Contains(o.hardware.CDImages, href) {
			use(href)
		}
	}
	switch {
	case len(o.disks) == 0:
		return nil, bad(Damaged, "OVF DiskSection", "the machine has no disk with a file")
	case len(o.disks) > maxDisks:
		return nil, bad(Damaged, "OVF DiskSection", "%d disks, at most %d are read", len(o.disks), maxDisks)
	}
	return o, nil
}

// ovfDepth bounds how deep the elements of an OVF are nested. Real ones go 6 deep.
const ovfDepth = 64

// shallow gives a decoder the tokens of raw, until they are nested too deep.
type shallow struct {
	raw   *xml.Decoder
	depth int
}

func (s *shallow) Token() (xml.Token, error) {
	token, err := s.raw.RawToken()
	switch token.(type) {
	case xml.StartElement:
		if s.depth++; s.depth > ovfDepth {
			return nil, fmt.Errorf("elements are nested more than %d deep", ovfDepth)
		}
	case xml.EndElement:
		s.depth--
	}
	return token, err
}

// firmware puts the words of VMware ("bios", "efi") and VirtualBox ("BIOS", "EFI", "EFI64") into ours.
func firmware(word string) string {
	switch word = strings.ToLower(word); {
	case strings.HasPrefix(word, "efi"), word == "uefi":
		return "efi"
	case word == "bios":
		return "bios"
	}
	return ""
}

// memoryMB is a memory item's quantity in MiB, 0 if it is not understood. Units are "byte * 2^20" or older words.
func memoryMB(item ovfItem) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(item.Quantity), 10, 64)
	if err != nil || n <= 0 || n > 1<<40 {
		return 0
	}
	switch strings.ToLower(strings.ReplaceAll(item.AllocationUnits, " ", "")) {
	case "byte*2^20", "megabytes", "megabyte", "mb":
		return n
	case "byte*2^30", "gigabytes", "gigabyte", "gb":
		return n << 10
	case "byte*2^10", "kilobytes", "kilobyte", "kb":
		return n >> 10
	case "byte", "bytes":
		return n >> 20
	}
	return 0
}
