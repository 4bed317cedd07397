package s3

import (
	"fmt"
	"net/http"
)

// Refusal is an S3 error: the caller's fault, or something that we do not do. It reaches the client as Amazon's XML error.
// Two Refusals are the same to errors.Is when their Code is the same.
type Refusal struct {
	Status  int    // HTTP
	Code    string // Amazon's: NoSuchKey
	Message string // Amazon's sentence where there is one
	Subject string // the bucket, key, upload or header that it is about; may be empty
}

func (r *Refusal) Error() string {
	if r.Subject == "" {
		return fmt.Sprintf("%s: %s", r.Code, r.Message)
	}
	return fmt.Sprintf("%s: %s (%s)", r.Code, r.Message, r.Subject)
}

// Is makes errors.Is compare codes.
func (r *Refusal) Is(target error) bool {
	t, ok := target.(*Refusal)
	return ok && t.Code == r.Code
}

// about is the same refusal with its subject.
func (r *Refusal) about(subject string) *Refusal {
	c := *r
	c.Subject = subject
	return &c
}

// saying is the same refusal with another message.
func (r *Refusal) saying(format string, args ...any) *Refusal {
	c := *r
	c.Message = fmt.Sprintf(format, args...)
	return &c
}

// Amazon's error codes, statuses and sentences (Amazon S3 API Reference, "Error responses").
var (
	ErrNoSuchBucket        = &Refusal{http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist", ""}
	ErrNoSuchKey           = &Refusal{http.StatusNotFound, "NoSuchKey", "The specified key does not exist.", ""}
	ErrNoSuchUpload        = &Refusal{http.StatusNotFound, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.", ""}
	ErrAccessDenied        = &Refusal{http.StatusForbidden, "AccessDenied", "Access Denied", ""}
	ErrBucketOwned         = &Refusal{http.StatusConflict, "BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.", ""}
	ErrBucketExists        = &Refusal{http.StatusConflict, "BucketAlreadyExists", "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Select a different name and try again.", ""}
	ErrBucketNotEmpty      = &Refusal{http.StatusConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty", ""}
	ErrInvalidBucketName   = &Refusal{http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid.", ""}
	ErrInvalidURI          = &Refusal{http.StatusBadRequest, "InvalidURI", "Couldn't parse the specified URI.", ""}
	ErrKeyTooLong          = &Refusal{http.StatusBadRequest, "KeyTooLongError", "Your key is too long", ""}
	ErrInvalidArgument     = &Refusal{http.StatusBadRequest, "InvalidArgument", "Invalid Argument", ""}
	ErrInvalidRequest      = &Refusal{http.StatusBadRequest, "InvalidRequest", "Invalid Request", ""}
	ErrInvalidDigest       = &Refusal{http.StatusBadRequest, "InvalidDigest", "The Content-MD5 you specified was invalid.", ""}
	ErrBadDigest           = &Refusal{http.StatusBadRequest, "BadDigest", "The Content-MD5 you specified did not match what we received.", ""}
	ErrContentSHA256       = &Refusal{http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.", ""}
	ErrIncompleteBody      = &Refusal{http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header", ""}
	ErrRequestTimeout      = &Refusal{http.StatusBadRequest, "RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period.", ""}
	ErrMissingLength       = &Refusal{http.StatusLengthRequired, "MissingContentLength", "You must provide the Content-Length HTTP header.", ""}
	ErrEntityTooLarge      = &Refusal{http.StatusBadRequest, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", ""}
	ErrEntityTooSmall      = &Refusal{http.StatusBadRequest, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", ""}
	ErrMetadataTooLarge    = &Refusal{http.StatusBadRequest, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size", ""}
	ErrMalformedXML        = &Refusal{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema", ""}
	ErrInvalidPart         = &Refusal{http.StatusBadRequest, "InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.", ""}
	ErrInvalidPartOrder    = &Refusal{http.StatusBadRequest, "InvalidPartOrder", "The list of parts was not in ascending order. The parts list must be specified in order by part number.", ""}
	ErrInvalidPartNumber   = &Refusal{http.StatusRequestedRangeNotSatisfiable, "InvalidPartNumber", "The requested partnumber is not satisfiable", ""}
	ErrInvalidRange        = &Refusal{http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable", ""}
	ErrPreconditionFailed  = &Refusal{http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold", ""}
	ErrOperationAborted    = &Refusal{http.StatusConflict, "OperationAborted", "A conflicting conditional operation is currently in progress against this resource. Please try again.", ""}
	ErrMethodNotAllowed    = &Refusal{http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed against this resource.", ""}
	ErrNotImplemented      = &Refusal{http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented", ""}
	ErrIllegalLocation     = &Refusal{http.StatusBadRequest, "IllegalLocationConstraintException", "The specified location constraint is incompatible for the region specific endpoint this request was sent to.", ""}
	errInternal            = &Refusal{http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.", ""}
	errNoSpace             = &Refusal{http.StatusInsufficientStorage, "InternalError", "The server has no disk space left for this object.", ""}
	errNotModified         = &Refusal{http.StatusNotModified, "NotModified", "Not Modified", ""}
	errServiceShuttingDown = &Refusal{http.StatusServiceUnavailable, "ServiceUnavailable", "The store is closed. Please try again later.", ""}
)
