package desk

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"berth/internal/awsapi"
)

// STS is the door to the one STS operation that tools ask first.
type STS struct{}

// STS is the desk's STS door.
func (d *Desk) STS() *STS { return &STS{} }

// GetCallerIdentityInput is empty.
type GetCallerIdentityInput struct{}

// GetCallerIdentityOutput says who called.
type GetCallerIdentityOutput struct {
	UserID  *string `xml:"UserId"`
	Account *string `xml:"Account"`
	Arn     *string `xml:"Arn"`
}

// GetCallerIdentity says who signed the request. It needs no permission.
func (*STS) GetCallerIdentity(ctx context.Context, _ *GetCallerIdentityInput) (*GetCallerIdentityOutput, error) {
	c := awsapi.CallerOf(ctx)
	return &GetCallerIdentityOutput{UserID: aws.String(c.AccessKeyID), Account: aws.String(c.AccountID), Arn: aws.String(c.ARN)}, nil
}
