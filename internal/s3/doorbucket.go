package s3

import (
	"net/http"
	"strings"
)

func (q *request) listBuckets() error {
	const limit = 10_000 // ListBuckets, MaxBuckets
	most, err := q.number("max-buckets", limit, 1, limit)
	if err != nil {
		return err
	}
	var after cursor
	if token := q.query.Get("continuation-token"); token != "" {
		if after, err = cursorOf(token); err != nil {
			return err
		}
	}
	prefix := q.query.Get("prefix")
	out := listBucketsXML{Owner: q.owner(), Prefix: prefix}
	if region := q.query.Get("bucket-region"); region == "" || region == q.door.Region {
		for _, b := range q.door.Store.Buckets() {
			if !strings.HasPrefix(b.Name, prefix) || b.Name <= after.key {
				continue
			}
			if len(out.Buckets) == most {
				out.ContinuationToken = cursor{key: out.Buckets[most-1].Name}.token()
				break
			}
			out.Buckets = append(out.Buckets, bucketXML{b.Name, stamp(b.Created), q.door.Region})
		}
	}
	q.answer(http.StatusOK, out)
	return nil
}

func (q *request) getBucketLocation() error {
	if err := q.door.Store.HasBucket(q.bucket); err != nil {
		return err
	}
	out := locationXML{Location: q.door.Region}
	if out.Location == "us-east-1" { // GetBucketLocation: "Buckets in Region us-east-1 have a LocationConstraint of null"
		out.Location = ""
	}
	q.answer(http.StatusOK, out)
	return nil
}

func (q *request) headBucket() error {
	if err := q.door.Store.HasBucket(q.bucket); err != nil {
		return err
	}
	q.w.Header().Set("X-Amz-Bucket-Region", q.door.Region)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *request) createBucket() error {
	if q.body.Length() != 0 {
		var in createBucketXML
		payload, err := q.payload()
		if err != nil {
			return err
		}
		if err := q.xml(payload, &in); err != nil {
			return err
		}
		if len(in.Rest) > 0 {
			return ErrNotImplemented.saying("An element of CreateBucketConfiguration implies functionality that is not implemented").about(in.Rest[0].XMLName.Local)
		}
		if in.LocationConstraint != "" && in.LocationConstraint != q.door.Region {
			return ErrIllegalLocation.about(in.LocationConstraint)
		}
	}
	if err := q.door.Store.CreateBucket(q.bucket); err != nil {
		return err
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *request) deleteBucket() error {
	if err := q.door.Store.DeleteBucket(q.bucket); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (q *request) listObjectsV2() error {
	if q.query.Get("list-type") != "2" {
		return ErrInvalidArgument.saying("Invalid List Type specified in Request").about("list-type")
	}
	after := cursor{key: q.query.Get("start-after")}
	token := q.query.Get("continuation-token")
	if token != "" {
		var err error
		if after, err = cursorOf(token); err != nil {
			return err
		}
	}
	out, encode, err := q.listed(after, func(out *listObjectsXML, l listing) {
		count := len(l.objects) + len(l.prefixes)
		out.KeyCount = &count
		if l.more {
			out.NextContinuationToken = l.next.token()
		}
	})
	if err != nil {
		return err
	}
	if q.query.Get("fetch-owner") == "true" {
		owner := q.owner()
		for i := range out.Contents {
			out.Contents[i].Owner = &owner
		}
	}
	out.ContinuationToken, out.StartAfter = token, encode(q.query.Get("start-after"))
	q.answer(http.StatusOK, out)
	return nil
}

func (q *request) listObjects() error {
	// A marker may be the NextMarker of a page that ended with a group.
	marker, delimiter := q.query.Get("marker"), q.query.Get("delimiter")
	rest, inside := strings.CutPrefix(marker, q.query.Get("prefix"))
	after := cursor{marker, delimiter != "" && inside && strings.Index(rest, delimiter) == len(rest)-len(delimiter) && rest != ""}
	var next string
	out, encode, err := q.listed(after, func(_ *listObjectsXML, l listing) {
		if l.more {
			next = l.next.key
		}
	})
	if err != nil {
		return err
	}
	owner := q.owner()
	for i := range out.Contents {
		out.Contents[i].Owner = &owner
	}
	marker = encode(marker)
	out.Marker, out.NextMarker = &marker, encode(next)
	q.answer(http.StatusOK, out)
	return nil
}

// listed is what both versions of ListObjects answer.
func (q *request) listed(after cursor, page func(*listObjectsXML, listing)) (*listObjectsXML, func(string) string, error) {
	most, err := q.number("max-keys", MaxListKeys, 0, MaxListKeys)
	if err != nil {
		return nil, nil, err
	}
	encoding, encode, err := q.encoder()
	if err != nil {
		return nil, nil, err
	}
	prefix, delimiter := q.query.Get("prefix"), q.query.Get("delimiter")
	l, err := q.door.Store.list(q.bucket, prefix, delimiter, after, most)
	if err != nil {
		return nil, nil, err
	}
	out := &listObjectsXML{Name: q.bucket, Prefix: encode(prefix), Delimiter: encode(delimiter), MaxKeys: most, EncodingType: encoding, IsTruncated: l.more}
	for _, o := range l.objects {
		out.Contents = append(out.Contents, objectXML{Key: encode(o.Key), LastModified: stamp(o.Modified), ETag: quoted(o.ETag),
			Size: o.Size, StorageClass: "STANDARD", ChecksumAlgorithm: o.Checksum.Algorithm, ChecksumType: o.Checksum.Type})
	}
	for _, p := range l.prefixes {
		out.CommonPrefixes = append(out.CommonPrefixes, prefixXML{encode(p)})
	}
	page(out, l)
	return out, encode, nil
}

func (q *request) deleteObjects() error {
	if q.Header.Get("Content-Md5") == "" {
		if c, err := q.checksum(); err != nil || c.Algorithm == "" && q.Header.Get("X-Amz-Trailer") == "" {
			return ErrInvalidRequest.saying("Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
		}
	}
	var in deleteXML
	payload, err := q.payload()
	if err != nil {
		return err
	}
	if err := q.xml(payload, &in); err != nil {
		return err
	}
	if len(in.Object) == 0 || len(in.Object) > MaxListKeys {
		return ErrMalformedXML
	}
	if err := q.door.Store.HasBucket(q.bucket); err != nil {
		return err
	}
	var out deleteResultXML
	for _, o := range in.Object {
		err := q.allowed("s3:DeleteObject", q.bucket, o.Key)
		if err == nil && (o.VersionID != "" && o.VersionID != "null" || o.ETag != "") {
			err = ErrNotImplemented.saying("Versions and conditions of a deletion are not implemented")
		}
		if err == nil {
			err = q.door.Store.remove(q.bucket, o.Key)
		}
		if err != nil {
			e := shown(err)
			out.Error = append(out.Error, deleteErrorXML{o.Key, e.Code, e.Message})
		} else if !in.Quiet {
			out.Deleted = append(out.Deleted, deletedXML{o.Key})
		}
	}
	q.answer(http.StatusOK, out)
	return nil
}
