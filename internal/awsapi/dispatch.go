package awsapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"runtime/debug"
	"strings"

	"github.com/aws/smithy-go"
)

// exchange is one request on its way: what is known about it grows until the answer is written.
type exchange struct {
	id       string   // request id
	svc      *service // nil until known
	protocol Protocol // of the answer
	name     string   // operation
	op       operation
	form     *formNode // Query and EC2
}

// ServeHTTP answers one request. The order is: find the service, read the body, verify the signature, find the
// operation, decode, validate, authorise, EC2's DryRun, call. Nothing but the size of the body and the existence of
// the service is told to a caller who has not signed.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := s.cfg.Auth.Now()
	x := &exchange{id: s.cfg.NewID(), protocol: JSON11}
	body, err := s.answer(x, w, r)
	status, code := http.StatusOK, ""
	if err != nil {
		refusal := s.refusalOf(r.Context(), x, err)
		status, code = statusOf(refusal), refusal.ErrorCode()
		body = x.encodeError(refusal)
	}
	h := w.Header()
	h.Set("X-Amzn-Requestid", x.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if x.protocol == JSON11 {
		h.Set("Content-Type", jsonType)
	} else {
		h.Set("Content-Type", xmlType)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the connection may be gone: there is nobody left to tell
	service, operation := "unknown", "unknown"
	if x.svc != nil {
		service = x.svc.Name
	}
	if x.op.name != "" {
		operation = x.op.name
	}
	took := s.cfg.Auth.Now().Sub(began)
	s.cfg.Observe(service, operation, code, took)
	s.cfg.Log.DebugContext(r.Context(), "request", "request_id", x.id, "service", service, "operation", operation, "code", code, "took", took)
}

// panicked is the error of a handler that panicked: a failure like others.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// answer makes the body of a successful answer.
func (s *Server) answer(x *exchange, w http.ResponseWriter, r *http.Request) (body []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			body, err = nil, &panicked{v, debug.Stack()}
		}
	}()
	out, err := s.serve(x, w, r)
	if err != nil {
		return nil, err
	}
	return x.encode(out)
}

func (s *Server) serve(x *exchange, w http.ResponseWriter, r *http.Request) (any, error) {
	target := r.Header.Get("X-Amz-Target")
	if target != "" {
		prefix, name, _ := strings.Cut(target, ".")
		x.svc, x.name = s.byTarget[prefix], name
	} else if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t == formType {
		x.protocol = Query
		// Only the body says which service is meant, and it may be none that can be read: until then the signature does.
		for _, svc := range s.byVersion {
			if svc.Name == SignedFor(r) {
				x.svc, x.protocol = svc, svc.Protocol
			}
		}
	}
	if r.Method != http.MethodPost || r.URL.Path != "/" || target == "" && x.protocol == JSON11 || target != "" && x.svc == nil {
		return nil, unknownOperation(x, printable(target))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		e := &Error{Code: "RequestEntityTooLarge", Message: fmt.Sprintf("Request size exceeded %d bytes", s.cfg.MaxBody), Status: http.StatusRequestEntityTooLarge}
		if x.protocol == JSON11 {
			e.Code = "RequestEntityTooLargeException"
		}
		return nil, e
	}
	if err != nil {
		return nil, &Error{Code: "RequestAbortedException", Message: "The request was aborted before its body was complete"}
	}
	if target == "" {
		if err := s.routeForm(x, body); err != nil {
			return nil, err
		}
	}
	caller, err := s.cfg.Auth.request(r, body, x.svc.Name, x.protocol)
	if err != nil {
		return nil, err
	}
	op, ok := x.svc.ops[x.name]
	if !ok {
		return nil, unknownOperation(x, printable(x.name))
	}
	x.op = op
	ctx := WithCaller(r.Context(), caller)
	return x.call(ctx, caller, body)
}

// routeForm finds the service of a Query request by its Version, and takes what every operation has out of the form.
func (s *Server) routeForm(x *exchange, body []byte) error {
	q, err := url.ParseQuery(string(body))
	if err != nil {
		return &Error{Code: "MalformedQueryString", Message: "The query string contains a syntax error"}
	}
	if x.form, err = parseForm(q); err != nil {
		return err
	}
	version, _ := x.form.take("Version")
	x.name, _ = x.form.take("Action")
	svc := s.byVersion[version]
	if svc == nil {
		return &Error{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", printable(x.name), printable(version))}
	}
	x.svc, x.protocol = svc, svc.Protocol
	if x.name == "" {
		return &Error{Code: "MissingAction", Message: "The request must contain the parameter Action"}
	}
	return nil
}

// unknownOperation tells an operation that AWS has and Berth does not from one that nobody has.
func unknownOperation(x *exchange, name string) error {
	known := x.svc != nil && x.svc.Model != nil && x.svc.Model.Has(x.name)
	switch {
	case x.protocol == JSON11 && known:
		return &Error{Code: "OperationNotSupportedException", Message: "The operation " + name + " is not supported by this service."}
	case x.protocol == JSON11:
		return &Error{Code: "UnknownOperationException", Message: "The operation " + name + " does not exist."}
	case known:
		return &Error{Code: "UnsupportedOperation", Message: "The operation " + name + " is not supported by this service."}
	case x.protocol == EC2:
		return &Error{Code: "InvalidAction", Message: "The action " + name + " is not valid for this web service."}
	}
	version := ""
	if x.svc != nil {
		version = x.svc.Version
	}
	return &Error{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", name, version)}
}

// call takes a verified request from its decoding to the operation's result.
func (x *exchange) call(ctx context.Context, caller Caller, body []byte) (any, error) {
	in := reflect.New(x.op.in)
	dryRun := false
	if x.protocol == JSON11 {
		if err := decodeJSON(body, in.Interface()); err != nil {
			return nil, err
		}
	} else {
		if x.protocol == EC2 {
			v, ok := x.form.take("DryRun")
			if dryRun = v == "true"; ok && !dryRun && v != "false" {
				return nil, &Error{Code: "InvalidParameterValue", Message: fmt.Sprintf("Invalid value '%s' for DryRun. Expected a value of type Boolean.", printable(v))}
			}
		}
		if err := decodeForm(x.form, in.Interface(), x.protocol); err != nil {
			return nil, err
		}
	}
	if err := x.svc.Model.Validate(x.op.name, in.Interface(), x.protocol); err != nil {
		return nil, err
	}
	if !x.svc.open[x.op.name] {
		resources := []string{"*"}
		if x.svc.namer != nil {
			if arns := x.svc.namer.ResourceARNs(x.op.name, in.Interface()); len(arns) > 0 {
				resources = arns
			}
		}
		for _, arn := range resources {
			if err := caller.Authorize(x.svc.Name+":"+x.op.name, arn); err != nil {
				return nil, err
			}
		}
	}
	if dryRun {
		return nil, &Error{Code: "DryRunOperation", Message: "Request would have succeeded, but DryRun flag is set.", Status: http.StatusPreconditionFailed}
	}
	return x.op.run(ctx, in)
}

func (o operation) run(ctx context.Context, in reflect.Value) (any, error) {
	res := o.call.Call([]reflect.Value{reflect.ValueOf(ctx), in})
	if e, _ := res[1].Interface().(error); e != nil {
		return nil, e
	}
	if res[0].IsNil() {
		return nil, errors.New("the operation returned neither an output nor an error")
	}
	return res[0].Interface(), nil
}

func (x *exchange) encode(out any) ([]byte, error) {
	if x.protocol == JSON11 {
		return encodeJSON(out)
	}
	return encodeXML(x.svc, x.op.name, x.id, out)
}

func (x *exchange) encodeError(err smithy.APIError) []byte {
	if x.protocol == JSON11 {
		if b, e := encodeJSONError(err); e == nil {
			return b
		}
		return []byte(`{"__type":"InternalServerException","message":"The error could not be written."}`)
	}
	return encodeXMLError(x.protocol, x.svc, x.id, err)
}

// refusalOf tells refusals, which are shown, from failures, which are logged once and shown as an id to ask for. An
// error that an AWS client brought back from somewhere else is a failure of ours, whatever its code.
func (s *Server) refusalOf(ctx context.Context, x *exchange, err error) smithy.APIError {
	var refusal smithy.APIError
	var elsewhere *smithy.OperationError
	if errors.As(err, &refusal) && !errors.As(err, &elsewhere) {
		return refusal
	}
	args := []any{"request_id", x.id, "operation", x.name, "err", err}
	if x.svc != nil {
		args = append(args, "service", x.svc.Name)
	}
	var p *panicked
	if errors.As(err, &p) {
		args = append(args, "stack", string(p.stack))
	}
	level := slog.LevelError
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		level = slog.LevelInfo // the caller has gone away, which is no failure
	}
	s.cfg.Log.Log(ctx, level, "request failed", args...)
	code := map[Protocol]string{JSON11: "InternalServerException", Query: "InternalFailure", EC2: "InternalError"}[x.protocol]
	return &Error{Code: code, Message: "An internal error has occurred. Request id: " + x.id, Status: http.StatusInternalServerError}
}

func statusOf(err smithy.APIError) int {
	if e, ok := err.(*Error); ok && e.Status != 0 {
		return e.Status
	}
	if err.ErrorFault() == smithy.FaultServer {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

var _ http.Handler = (*Server)(nil)
