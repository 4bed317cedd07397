package awsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Secret is a secret access key. It prints as REDACTED wherever fmt, slog or an encoder would show it; Reveal gives it out.
type Secret string

const redacted = "REDACTED"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// AccessKey is a key that requests are signed with, and the user it belongs to.
type AccessKey struct {
	ID        string // AKIA...
	Secret    Secret
	UserName  string
	AccountID string  // twelve digits
	Policy    *Policy // what the user may do; nil: nothing
}

// ErrNoSuchKey is KeyStore's answer for a key that does not exist or is not active.
var ErrNoSuchKey = errors.New("no such access key")

// KeyStore finds access keys.
type KeyStore interface {
	// AccessKey returns the active key with this id, or ErrNoSuchKey. The id comes from the request and is not yet
	// to be trusted. Any other error is a failure of ours: the request is answered with 500.
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}

// Caller is who signed a request. The zero Caller is nobody and may do nothing.
type Caller struct {
	AccountID, UserName, AccessKeyID string
	ARN                              string // arn:aws:iam::<account>:user/<name>

	policy   *Policy
	protocol Protocol
}

// NewCaller is the caller who signs with a key, in a protocol.
func NewCaller(k AccessKey, p Protocol) Caller {
	return Caller{AccountID: k.AccountID, UserName: k.UserName, AccessKeyID: k.ID,
		ARN: "arn:aws:iam::" + k.AccountID + ":user/" + k.UserName, policy: k.Policy, protocol: p}
}

// Authorize returns nil when the caller's policy allows the action ("ec2:DescribeImages") on the resource (an ARN, or
// "*" for an action that has none), else an *Error with the code and the text that AWS gives in the protocol of
// the request.
func (c Caller) Authorize(action, resource string) error {
	d := c.policy.Decide(action, resource)
	if d == Allowed {
		return nil
	}
	why := fmt.Sprintf("because no identity-based policy allows the %s action", action)
	if d == Denied {
		why = "with an explicit deny in an identity-based policy"
	}
	switch who := c.ARN; c.protocol {
	case EC2:
		return refuse(EC2, denied, "You are not authorized to perform this operation. User: %s is not authorized to perform: %s %s", who, action, why)
	case S3, Query:
		return refuse(c.protocol, denied, "User: %s is not authorized to perform: %s on resource: %s %s", who, action, resource, why)
	default:
		return refuse(JSON11, denied, "User: %s is not authorized to perform: %s on resource: %s %s", who, action, resource, why)
	}
}

type callerKey struct{}

// WithCaller returns a context that carries the caller, for doors that authenticate by themselves (S3).
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who signed the request that ctx belongs to, or the zero Caller.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Authorize asks for one more permission of the request's caller, for an operation that needs another service's:
// ImportWorkspaceImage needs ec2:DescribeImages and ec2:ModifyImageAttribute. See Caller.Authorize; a context without
// a caller is refused.
func Authorize(ctx context.Context, action, resource string) error {
	return CallerOf(ctx).Authorize(action, resource)
}
