// Package awsapi is the AWS wire: it authenticates, authorises, decodes, validates and dispatches requests of the
// AWS JSON 1.1 and Query protocols, and encodes what comes back. It authenticates S3's requests as well, bodies of
// any size included.
//
// It knows no operation: a Service is any value whose methods have the shape
//
//	func (ctx context.Context, *XInput) (*XOutput, error)
//
// and no state: keys come from a KeyStore, time and request ids from functions. It does not serve S3's objects.
//
// Start at Service and New; sigv4.go has the signatures, streaming.go S3's bodies, policy.go IAM's policies,
// json.go and query.go the codecs, model.go the constraints of Amazon's service models.
package awsapi
