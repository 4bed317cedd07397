package awsapi

import (
	"fmt"
	"net/http"
	"time"

	"github.com/aws/smithy-go"
)

// Protocol is how a service is spoken to on the wire. It also decides which of AWS's names an error of the wire
// itself bears, since AWS has a different one for each of them.
type Protocol int

// The protocols. S3 is authenticated here (Authenticator.S3) but served elsewhere.
const (
	JSON11 Protocol = iota + 1 // POST / with X-Amz-Target, application/x-amz-json-1.1: WorkSpaces
	Query                      // POST / with a form, XML out, <XResult> and <ResponseMetadata>: STS
	EC2                        // POST / with a form, XML out, <requestId> beside the members: EC2
	S3                         // object paths and bodies of any size
)

// Error is a refusal with AWS's code and message. It is for errors that the SDK has no type for: those of the wire,
// and those of EC2 and STS. Status is the HTTP status, 400 when zero.
type Error struct {
	Code, Message string
	Status        int
}

var _ smithy.APIError = (*Error)(nil)

func (e *Error) Error() string        { return e.Code + ": " + e.Message }
func (e *Error) ErrorCode() string    { return e.Code }
func (e *Error) ErrorMessage() string { return e.Message }

// ErrorFault blames the server for a status of 500 and above, else the client.
func (e *Error) ErrorFault() smithy.ErrorFault {
	if e.Status >= http.StatusInternalServerError {
		return smithy.FaultServer
	}
	return smithy.FaultClient
}

// reason is why a request was not let in, before a protocol has given it a name.
type reason int

const (
	noCredentials  reason = iota // neither an Authorization header nor a presigned query
	incomplete                   // a part of the signature is missing or malformed
	wrongScope                   // the credential scope names another date, region or service
	skewed                       // signed too long ago, or in the future
	expired                      // a presigned URL past its X-Amz-Expires
	unknownKey                   // no such access key, or a session token, which Berth does not issue
	wrongSignature               // what we calculated is not what was sent
	unsignedHeader               // a header that must be signed is not
	denied                       // the caller's policy does not allow the action
)

// refusals gives the code and status of each reason by protocol. Sources: the "Common Errors" page of the WorkSpaces,
// STS and EC2 API references, the EC2 "Error codes" page and the S3 "Error responses" page. JSON services answer
// every client error with status 400.
var refusals = map[reason]map[Protocol]Error{
	noCredentials:  {JSON11: {Code: "MissingAuthenticationTokenException"}, Query: {Code: "MissingAuthenticationToken", Status: 403}, EC2: {Code: "MissingParameter"}, S3: {Code: "AccessDenied", Status: 403}},
	incomplete:     {JSON11: {Code: "IncompleteSignatureException"}, Query: {Code: "IncompleteSignature"}, EC2: {Code: "IncompleteSignature"}, S3: {Code: "AuthorizationHeaderMalformed"}},
	wrongScope:     {JSON11: {Code: "InvalidSignatureException"}, Query: {Code: "SignatureDoesNotMatch", Status: 403}, EC2: {Code: "AuthFailure", Status: 401}, S3: {Code: "AuthorizationHeaderMalformed"}},
	skewed:         {JSON11: {Code: "InvalidSignatureException"}, Query: {Code: "SignatureDoesNotMatch", Status: 403}, EC2: {Code: "RequestExpired"}, S3: {Code: "RequestTimeTooSkewed", Status: 403}},
	expired:        {JSON11: {Code: "InvalidSignatureException"}, Query: {Code: "SignatureDoesNotMatch", Status: 403}, EC2: {Code: "RequestExpired"}, S3: {Code: "AccessDenied", Status: 403}},
	unknownKey:     {JSON11: {Code: "UnrecognizedClientException"}, Query: {Code: "InvalidClientTokenId", Status: 403}, EC2: {Code: "AuthFailure", Status: 401}, S3: {Code: "InvalidAccessKeyId", Status: 403}},
	wrongSignature: {JSON11: {Code: "InvalidSignatureException"}, Query: {Code: "SignatureDoesNotMatch", Status: 403}, EC2: {Code: "AuthFailure", Status: 401}, S3: {Code: "SignatureDoesNotMatch", Status: 403}},
	unsignedHeader: {JSON11: {Code: "InvalidSignatureException"}, Query: {Code: "SignatureDoesNotMatch", Status: 403}, EC2: {Code: "AuthFailure", Status: 401}, S3: {Code: "AccessDenied", Status: 403}},
	denied:         {JSON11: {Code: "AccessDeniedException"}, Query: {Code: "AccessDenied", Status: 403}, EC2: {Code: "UnauthorizedOperation", Status: 403}, S3: {Code: "AccessDenied", Status: 403}},
}

// messages are AWS's texts where they do not vary with the request.
var messages = map[reason]map[Protocol]string{
	noCredentials: {JSON11: "Missing Authentication Token", Query: "Request is missing Authentication Token",
		EC2: "The request must contain the parameter AWSAccessKeyId", S3: "Access Denied"},
	skewed:  {EC2: "Request has expired.", S3: "The difference between the request time and the current time is too large."},
	expired: {EC2: "Request has expired.", S3: "Request has expired"},
	unknownKey: {JSON11: "The security token included in the request is invalid.", Query: "The security token included in the request is invalid.",
		EC2: ec2AuthFailure, S3: "The AWS Access Key Id you provided does not exist in our records."},
	wrongScope: {EC2: ec2AuthFailure},
	wrongSignature: {JSON11: signatureMismatch, Query: signatureMismatch, EC2: ec2AuthFailure,
		S3: "The request signature we calculated does not match the signature you provided. Check your key and signing method."},
	unsignedHeader: {EC2: ec2AuthFailure, S3: "There were headers present in the request which were not signed"},
}

const (
	ec2AuthFailure    = "AWS was not able to validate the provided access credentials"
	signatureMismatch = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

// refuse makes the error of a reason: AWS's fixed text where there is one, else the text given.
func refuse(p Protocol, why reason, format string, args ...any) *Error {
	e := refusals[why][p]
	if e.Message = messages[why][p]; e.Message == "" {
		e.Message = fmt.Sprintf(format, args...)
	}
	return &e
}

// skewOf is how far a signature's time may be from ours: five minutes for most services ("AWS Signature Version 4"),
// fifteen for EC2 (RequestExpired) and S3 (RequestTimeTooSkewed).
func skewOf(p Protocol) time.Duration {
	if p == EC2 || p == S3 {
		return 15 * time.Minute
	}
	return 5 * time.Minute
}
