// Package sdk has tests alone: the SDK's own EC2, S3 and STS clients against a service that runs. It is a module of its own,
// because the SDK's EC2 package is 30 MB of source that nothing else of Berth needs.
//
// The program is ../../bin/berth, which make sdk builds first.
package sdk
