package s3

import (
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// breath is how long a completion may take before the client gets a first sign of life, and between two signs. S3 does the same
// (CompleteMultipartUpload: "periodically sends white space characters to keep the connection from timing out"); the CLI gives up after 60 s.
const breath = 10 * time.Second

func (q *request) createMultipartUpload() error {
	header, err := q.headers()
	if err != nil {
		return err
	}
	a, kind := Algorithm(strings.ToUpper(q.Header.Get("X-Amz-Checksum-Algorithm"))), q.Header.Get("X-Amz-Checksum-Type")
	if a != "" && !a.known() {
		return ErrInvalidRequest.saying("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
	}
	// CRC64NVME is of the whole object only, the SHAs of the parts only, the other CRCs of either.
	switch {
	case a == "" && kind != "":
		return ErrInvalidRequest.saying("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case a == CRC64NVME && kind == "":
		kind = fullObject
	case a != "" && kind == "":
		kind = composite
	case a == CRC64NVME && kind != fullObject, (a == SHA1 || a == SHA256) && kind != composite, a != "" && kind != fullObject && kind != composite:
		return ErrInvalidRequest.saying("The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(string(a)))
	}
	u, err := q.door.Store.createUpload(q.bucket, q.key, header, a, kind)
	if err != nil {
		return err
	}
	if a != "" {
		q.w.Header().Set("X-Amz-Checksum-Algorithm", string(a))
		q.w.Header().Set("X-Amz-Checksum-Type", kind)
	}
	q.answer(http.StatusOK, createUploadXML{Bucket: q.bucket, Key: q.key, UploadID: u.ID})
	return nil
}

// uploadPart is UploadPart and UploadPartCopy.
func (q *request) uploadPart() error {
	number, err := q.number("partNumber", 0, 1, MaxParts+1)
	if err != nil {
		return err
	}
	if q.Header.Get("X-Amz-Copy-Source") != "" {
		return q.copyPart(number)
	}
	in, err := q.payload()
	if err != nil {
		return err
	}
	p, err := q.door.Store.putPart(q.Context(), q.bucket, q.key, q.query.Get("uploadId"), number, in)
	if err != nil {
		return err
	}
	q.w.Header().Set("ETag", quoted(p.ETag))
	setChecksum(q.w.Header(), p.Checksum)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *request) copyPart(number int) error {
	bucket, key, err := q.copySource()
	if err != nil {
		return err
	}
	o, f, err := q.door.Store.open(bucket, key)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := q.copyCondition().check(o); err != nil {
		return err
	}
	s := span{0, o.Size}
	if r := q.Header.Get("X-Amz-Copy-Source-Range"); r != "" {
		var ok bool
		if s, ok, err = byteRange(r, o.Size); err != nil || !ok {
			return ErrInvalidArgument.saying("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy").about(r)
		}
	}
	in := body{r: io.NewSectionReader(f, s.start, s.length), size: s.length}
	p, err := q.door.Store.putPart(q.Context(), q.bucket, q.key, q.query.Get("uploadId"), number, in)
	if err != nil {
		return err
	}
	q.answer(http.StatusOK, copyXML{XMLName: xml.Name{Space: xmlns, Local: "CopyPartResult"}, LastModified: stamp(p.Modified), ETag: quoted(p.ETag), checksumXML: newChecksumXML(p.Checksum)})
	return nil
}

func (q *request) completeMultipartUpload() error {
	var in completeXML
	payload, err := q.plainPayload() // a checksum among the headers is the object's
	if err != nil {
		return err
	}
	if err := q.xml(payload, &in); err != nil {
		return err
	}
	list := make([]completed, 0, len(in.Part))
	for _, p := range in.Part {
		list = append(list, completed{p.PartNumber, p.ETag, p.read()})
	}
	size := int64(-1)
	if v := q.Header.Get("X-Amz-Mp-Object-Size"); v != "" {
		if size, err = strconv.ParseInt(v, 10, 64); err != nil || size < 0 {
			return ErrInvalidRequest.saying("Value for x-amz-mp-object-size header is invalid.")
		}
	}
	want, err := q.checksum()
	if err != nil {
		return err
	}
	type result struct {
		o   *object
		err error
	}
	done := make(chan result, 1)
	ctx := context.WithoutCancel(q.Context()) // once begun it is finished: a client that has gone will ask again
	go func() {
		o, err := q.door.Store.complete(ctx, q.bucket, q.key, q.query.Get("uploadId"), list, want, size, q.stored())
		done <- result{o, err}
	}()
	tick := time.NewTicker(breath)
	defer tick.Stop()
	for began := false; ; {
		select {
		case r := <-done:
			return q.completed(r.o, r.err, began)
		case <-tick.C:
			text := " "
			if !began {
				q.w.Header().Set("Content-Type", "application/xml")
				q.w.WriteHeader(http.StatusOK)
				text, began = xml.Header, true
			}
			control := http.NewResponseController(q.w)
			_ = control.SetWriteDeadline(time.Now().Add(q.door.stall())) // if the client has gone, so be it
			_, _ = io.WriteString(q.w, text)
			_ = control.Flush()
		}
	}
}

// completed answers a completion; began tells that the status and the XML's first line have been sent.
func (q *request) completed(o *object, err error, began bool) error {
	if err != nil && !began {
		return err
	}
	enc := xml.NewEncoder(q.w)
	if err != nil {
		// S3 has an error in a body with status 200 here too; the SDKs look for it.
		e := shown(err)
		_ = enc.Encode(errorXML{Code: e.Code, Message: e.Message, Subject: e.Subject, Resource: q.URL.Path, BucketName: q.bucket, RequestID: q.w.Header().Get("X-Amz-Request-Id")})
		return nil
	}
	out := completeResultXML{Location: "http://" + q.Host + q.URL.EscapedPath(), Bucket: q.bucket, Key: q.key, ETag: quoted(o.ETag), checksumXML: newChecksumXML(o.Checksum)}
	if began {
		_ = enc.Encode(out)
		return nil
	}
	q.answer(http.StatusOK, out)
	return nil
}

func (q *request) abortMultipartUpload() error {
	if err := q.door.Store.abort(q.bucket, q.key, q.query.Get("uploadId")); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (q *request) listParts() error {
	most, err := q.number("max-parts", MaxListKeys, 0, MaxListKeys)
	if err != nil {
		return err
	}
	marker, err := q.number("part-number-marker", 0, 0, MaxParts)
	if err != nil {
		return err
	}
	u, parts, err := q.door.Store.listParts(q.bucket, q.key, q.query.Get("uploadId"))
	if err != nil {
		return err
	}
	out := listPartsXML{Bucket: q.bucket, Key: q.key, UploadID: u.ID, Initiator: q.owner(), Owner: q.owner(), StorageClass: "STANDARD",
		PartNumberMarker: marker, MaxParts: most, ChecksumAlgorithm: u.Algorithm, ChecksumType: u.Type}
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(out.Part) == most {
			out.IsTruncated = true
			break
		}
		out.Part = append(out.Part, partXML{p.Number, stamp(p.Modified), quoted(p.ETag), p.Size, newChecksumXML(p.Checksum)})
		out.NextPartNumberMarker = p.Number
	}
	q.answer(http.StatusOK, out)
	return nil
}

func (q *request) listMultipartUploads() error {
	most, err := q.number("max-uploads", MaxListKeys, 1, MaxListKeys)
	if err != nil {
		return err
	}
	encoding, encode, err := q.encoder()
	if err != nil {
		return err
	}
	if d := q.query.Get("delimiter"); d != "" {
		return ErrNotImplemented.saying("A query parameter you provided implies functionality that is not implemented").about("delimiter")
	}
	uploads, err := q.door.Store.uploads(q.bucket)
	if err != nil {
		return err
	}
	prefix, marker, idMarker := q.query.Get("prefix"), q.query.Get("key-marker"), q.query.Get("upload-id-marker")
	out := listUploadsXML{Bucket: q.bucket, KeyMarker: encode(marker), UploadIDMarker: idMarker, Prefix: encode(prefix), EncodingType: encoding, MaxUploads: most}
	passed := idMarker == "" // of those with the marker's own key, only what comes behind upload-id-marker
	for _, u := range uploads {
		switch {
		case !strings.HasPrefix(u.Key, prefix), u.Key < marker, u.Key == marker && idMarker == "":
			continue
		case u.Key == marker && !passed:
			passed = u.ID == idMarker
			continue
		}
		if len(out.Upload) == most {
			out.IsTruncated = true
			break
		}
		out.Upload = append(out.Upload, uploadXML{encode(u.Key), u.ID, q.owner(), q.owner(), "STANDARD", stamp(u.Initiated), u.Algorithm, u.Type})
		out.NextKeyMarker, out.NextUploadIDMarker = encode(u.Key), u.ID
	}
	if !out.IsTruncated {
		out.NextKeyMarker, out.NextUploadIDMarker = "", ""
	}
	q.answer(http.StatusOK, out)
	return nil
}
