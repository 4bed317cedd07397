package s3

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// xmlns is the namespace of every S3 answer but errors.
const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// isoMillis is how S3 writes times in XML.
const isoMillis = "2006-01-02T15:04:05.000Z"

// stamp is a time in XML.
type stamp time.Time

func (t stamp) MarshalText() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format(isoMillis)), nil
}

type errorXML struct {
	XMLName    xml.Name `xml:"Error"`
	Code       string
	Message    string
	Subject    string `xml:",omitempty"`
	BucketName string `xml:",omitempty"`
	Resource   string
	RequestID  string `xml:"RequestId"`
}

type ownerXML struct {
	ID          string
	DisplayName string
}

type listBucketsXML struct {
	XMLName           xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListAllMyBucketsResult"`
	Owner             ownerXML
	Buckets           []bucketXML `xml:"Buckets>Bucket"`
	Prefix            string      `xml:",omitempty"`
	ContinuationToken string      `xml:",omitempty"`
}

type bucketXML struct {
	Name         string
	CreationDate stamp
	BucketRegion string
}

type locationXML struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ LocationConstraint"`
	Location string   `xml:",chardata"`
}

type createBucketXML struct {
	XMLName            xml.Name `xml:"CreateBucketConfiguration"`
	LocationConstraint string
	Rest               []struct {
		XMLName xml.Name
	} `xml:",any"`
}

type listObjectsXML struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	MaxKeys               int
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Marker                *string // ListObjects
	NextMarker            string  `xml:",omitempty"` // ListObjects
	KeyCount              *int    // ListObjectsV2, and what follows
	StartAfter            string  `xml:",omitempty"`
	ContinuationToken     string  `xml:",omitempty"`
	NextContinuationToken string  `xml:",omitempty"`
	Contents              []objectXML
	CommonPrefixes        []prefixXML
}

type objectXML struct {
	Key               string
	LastModified      stamp
	ETag              string
	Size              int64
	StorageClass      string
	ChecksumAlgorithm Algorithm `xml:",omitempty"`
	ChecksumType      string    `xml:",omitempty"`
	Owner             *ownerXML
}

type prefixXML struct{ Prefix string }

type copyXML struct {
	XMLName      xml.Name
	LastModified stamp
	ETag         string
	checksumXML
}

type deleteXML struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool
	Object  []struct {
		Key       string
		VersionID string `xml:"VersionId"`
		ETag      string
	}
}

type deleteResultXML struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []deletedXML
	Error   []deleteErrorXML
}

type deletedXML struct{ Key string }

type deleteErrorXML struct{ Key, Code, Message string }

type createUploadXML struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

type completeXML struct {
	XMLName xml.Name `xml:"CompleteMultipartUpload"`
	Part    []struct {
		PartNumber int
		ETag       string
		checksumXML
	}
}

type completeResultXML struct {
	XMLName  xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUploadResult"`
	Location string
	Bucket   string
	Key      string
	ETag     string
	checksumXML
}

type listUploadsXML struct {
	XMLName            xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListMultipartUploadsResult"`
	Bucket             string
	KeyMarker          string
	UploadIDMarker     string `xml:"UploadIdMarker"`
	NextKeyMarker      string `xml:",omitempty"`
	NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
	Prefix             string
	Delimiter          string `xml:",omitempty"`
	EncodingType       string `xml:",omitempty"`
	MaxUploads         int
	IsTruncated        bool
	Upload             []uploadXML
}

type uploadXML struct {
	Key               string
	UploadID          string `xml:"UploadId"`
	Initiator, Owner  ownerXML
	StorageClass      string
	Initiated         stamp
	ChecksumAlgorithm Algorithm `xml:",omitempty"`
	ChecksumType      string    `xml:",omitempty"`
}

type listPartsXML struct {
	XMLName              xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListPartsResult"`
	Bucket               string
	Key                  string
	UploadID             string `xml:"UploadId"`
	Initiator, Owner     ownerXML
	StorageClass         string
	PartNumberMarker     int
	NextPartNumberMarker int
	MaxParts             int
	IsTruncated          bool
	ChecksumAlgorithm    Algorithm `xml:",omitempty"`
	ChecksumType         string    `xml:",omitempty"`
	Part                 []partXML
}

type partXML struct {
	PartNumber   int
	LastModified stamp
	ETag         string
	Size         int64
	checksumXML
}

// checksumXML is the one checksum among five elements.
type checksumXML struct {
	CRC32     string `xml:"ChecksumCRC32,omitempty"`
	CRC32C    string `xml:"ChecksumCRC32C,omitempty"`
	CRC64NVME string `xml:"ChecksumCRC64NVME,omitempty"`
	SHA1      string `xml:"ChecksumSHA1,omitempty"`
	SHA256    string `xml:"ChecksumSHA256,omitempty"`
	Type      string `xml:"ChecksumType,omitempty"`
}

func (x *checksumXML) field(a Algorithm) *string {
	switch a {
	case CRC32:
		return &x.CRC32
	case CRC32C:
		return &x.CRC32C
	case CRC64NVME:
		return &x.CRC64NVME
	case SHA1:
		return &x.SHA1
	case SHA256:
		return &x.SHA256
	}
	return new(string)
}

func newChecksumXML(c Checksum) (x checksumXML) {
	*x.field(c.Algorithm) = c.Value
	x.Type = c.Type
	return x
}

// read is the first checksum that is there.
func (x checksumXML) read() Checksum {
	for _, a := range algorithms {
		if v := *x.field(a); v != "" {
			return Checksum{Algorithm: a, Value: v}
		}
	}
	return Checksum{}
}

// answer sends XML.
func (q *request) answer(status int, v any) {
	q.w.Header().Set("Content-Type", "application/xml")
	q.w.WriteHeader(status)
	_, _ = q.w.Write([]byte(xml.Header)) // a client that has gone need not be told
	_ = xml.NewEncoder(q.w).Encode(v)
}

// encoder gives the function for keys in lists: as they are, or escaped for encoding-type=url, which XML needs for control characters.
func (q *request) encoder() (name string, encode func(string) string, err error) {
	switch name = q.query.Get("encoding-type"); name {
	case "":
		return "", func(s string) string { return s }, nil
	case "url":
		plain := strings.NewReplacer("+", "%20", "%2F", "/")
		return name, func(s string) string { return plain.Replace(url.QueryEscape(s)) }, nil
	}
	return "", nil, ErrInvalidArgument.saying("Invalid Encoding Method specified in Request").about("encoding-type")
}

// token and cursorOf turn a place in a bucket into a continuation token and back.
func (c cursor) token() string {
	return base64.URLEncoding.EncodeToString([]byte(strconv.FormatBool(c.group) + ":" + c.key))
}

func cursorOf(token string) (cursor, error) {
	raw, err := base64.URLEncoding.DecodeString(token)
	group, key, ok := strings.Cut(string(raw), ":")
	g, errGroup := strconv.ParseBool(group)
	if err != nil || !ok || errGroup != nil || key == "" {
		return cursor{}, ErrInvalidArgument.saying("The continuation token provided is incorrect").about("continuation-token")
	}
	return cursor{key, g}, nil
}

func (q *request) owner() ownerXML { return ownerXML{q.door.AccountID, q.door.AccountID} }

func quoted(etag string) string { return `"` + etag + `"` }

func setChecksum(h http.Header, c Checksum) {
	if c.Algorithm == "" {
		return
	}
	h.Set(c.Algorithm.header(), c.Value)
	if c.Type != "" {
		h.Set("X-Amz-Checksum-Type", c.Type)
	}
}
