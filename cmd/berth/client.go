package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/smithy-go"
)

// client speaks to a service as any client does: over the network, signed with an access key.
type client struct {
	data       string // the service's data folder
	admin      adminFile
	http       *http.Client
	workspaces *workspaces.Client
	s3         *s3.Client
}

// dial makes a client from a service's admin.json. It does not connect.
func dial(data string) (*client, error) {
	b, err := os.ReadFile(filepath.Join(data, "admin.json"))
	if err != nil {
		return nil, fmt.Errorf("%w (is the service running? start it with: berth serve --data %s)", err, data)
	}
	var a adminFile
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(data, "admin.json"), err)
	}
	c := &client{data: data, admin: a, http: &http.Client{Timeout: time.Minute}}
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c.credentials(), nil })
	c.workspaces = workspaces.New(workspaces.Options{Region: a.Region, BaseEndpoint: &a.Endpoint, Credentials: credentials})
	c.s3 = s3.New(s3.Options{Region: a.Region, BaseEndpoint: &a.Endpoint, Credentials: credentials, UsePathStyle: true})
	return c, nil
}

func (c *client) credentials() aws.Credentials {
	return aws.Credentials{AccessKeyID: c.admin.AccessKeyID, SecretAccessKey: c.admin.SecretAccessKey}
}

// berth calls an operation of the service's own door. in has the members of the operation's input, out those of its output.
func (c *client) berth(ctx context.Context, operation string, in map[string]any, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, status, err := c.post(ctx, "berth", body, http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {"BerthService." + operation}})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(answer, &e); err != nil {
			return fmt.Errorf("%s: HTTP status %d", operation, status)
		}
		return &smithy.GenericAPIError{Code: e.Type, Message: e.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// ec2 calls an EC2 operation. form has its parameters, out is one of desk's EC2 outputs.
func (c *client) ec2(ctx context.Context, operation string, form url.Values, out any) error {
	form.Set("Action", operation)
	form.Set("Version", "2016-11-15")
	answer, status, err := c.post(ctx, "ec2", []byte(form.Encode()), http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}})
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		var e struct {
			Code    string `xml:"Errors>Error>Code"`
			Message string `xml:"Errors>Error>Message"`
		}
		if err := xml.Unmarshal(answer, &e); err != nil {
			return fmt.Errorf("%s: HTTP status %d", operation, status)
		}
		return &smithy.GenericAPIError{Code: e.Code, Message: e.Message}
	}
	return xml.Unmarshal(answer, out)
}

func (c *client) post(ctx context.Context, service string, body []byte, header http.Header) (answer []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.admin.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header = header
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, c.credentials(), req, hex.EncodeToString(sum[:]), service, c.admin.Region, time.Now()); err != nil {
		return nil, 0, err
	}
	res, err := c.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, 0, fmt.Errorf("nothing answers at %s: the service is not running (start it with: berth serve --data %s): %w", c.admin.Endpoint, c.data, err)
	}
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, 64<<20))
	return answer, res.StatusCode, err
}

// refusedWith tells whether an error is AWS's exception of that name.
func refusedWith(err error, code string) bool {
	var e smithy.APIError
	return errors.As(err, &e) && e.ErrorCode() == code
}
