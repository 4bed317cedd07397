// Package awsapi is the AWS wire: it authenticates, authorises, decodes, validates and dispatches requests of the
// AWS JSON 1.1 and Query protocols, and encodes what comes back. It authenticates S3's requests as well, bodies of
// any size included.
//
// It knows no operation: a Service is any value whose methods have the shape
//
//	func (ctx context.Context, *XInput) (*XOutput, error)
//
// and no state: keys come from a KeyStore, time and request ids from functions. It does not serve S3's objects, and it
// answers POST only: a Query request by GET, which AWS takes too, is refused.
//
// Start at Service and New; dispatch.go has a request's way, sigv4.go the signatures, streaming.go S3's bodies,
// policy.go IAM's policies, json.go and query.go the codecs, model.go the constraints of Amazon's service models.
package awsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// Service is one AWS service, or one of our own that is spoken to in the same way.
type Service struct {
	Name         string   // SigV4 service name and IAM prefix: "workspaces", "ec2", "sts", "berth"
	Protocol     Protocol // JSON11, Query or EC2
	TargetPrefix string   // JSON11: what stands before the dot in X-Amz-Target, "WorkspacesService"
	Version      string   // Query and EC2: the API version in the request and in the XML namespace, "2016-11-15"

	// Operations has the operations as methods of the shape func(context.Context, *XInput) (*XOutput, error), X being
	// the method's name. Other methods are left alone. It may be a ResourceNamer.
	Operations any

	// Model holds the constraints on inputs, and the names of operations that AWS has whether or not
	// Operations has them. Nil: no constraints.
	Model *Model

	// Open lists the operations that every signed caller may use whatever the policy says: sts:GetCallerIdentity.
	Open []string
}

// ResourceNamer is implemented by Operations that can be permitted for single resources.
type ResourceNamer interface {
	// ResourceARNs returns the ARNs that a call touches, every one of which the caller's policy must allow. None
	// means "*". The input is a *XInput that has passed validation.
	ResourceARNs(operation string, input any) []string
}

// Config is what a Server is made of. Everything but Observe and MaxBody is required.
type Config struct {
	Auth     *Authenticator
	Services []Service
	NewID    func() string // a new request id, a UUID
	Log      *slog.Logger

	// MaxBody is the longest body accepted, in bytes; zero means 1 MiB, which is ours (AWS states no limit for these
	// services, and their largest request of the eight steps has a few KiB). It is held in memory before the
	// signature can be verified.
	MaxBody int64

	// Observe is told of every request: the service and operation ("unknown" for one that does not exist, so that a
	// stranger cannot make names up), the error code ("" for success) and the time it took.
	Observe func(service, operation, code string, took time.Duration)
}

// Server is the door for all services of JSON 1.1 and Query. It is an http.Handler.
type Server struct {
	cfg       Config
	byTarget  map[string]*service
	byVersion map[string]*service
}

// service is a Service with its operations found.
type service struct {
	Service
	ops   map[string]operation
	namer ResourceNamer
	open  map[string]bool
}

type operation struct {
	name string
	in   reflect.Type // XInput
	call reflect.Value
}

const defaultMaxBody = 1 << 20 // bytes

// New checks the configuration and returns the server. An operation whose types cannot be put on the wire, or that is
// not in its service's model, is an error here rather than at the first request.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Auth == nil || cfg.Auth.Keys == nil || cfg.Auth.Region == "" || cfg.Auth.Now == nil:
		return nil, errors.New("awsapi: Config.Auth needs Keys, Region and Now")
	case cfg.NewID == nil || cfg.Log == nil:
		return nil, errors.New("awsapi: Config needs NewID and Log")
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = defaultMaxBody
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string, string, time.Duration) {}
	}
	s := &Server{cfg: cfg, byTarget: map[string]*service{}, byVersion: map[string]*service{}}
	for _, svc := range cfg.Services {
		found, err := newService(svc)
		if err != nil {
			return nil, fmt.Errorf("awsapi: service %q: %w", svc.Name, err)
		}
		index, key := s.byVersion, svc.Version
		if svc.Protocol == JSON11 {
			index, key = s.byTarget, svc.TargetPrefix
		}
		if key == "" || index[key] != nil {
			return nil, fmt.Errorf("awsapi: service %q: its TargetPrefix or Version %q is empty or taken", svc.Name, key)
		}
		index[key] = found
	}
	return s, nil
}

func newService(svc Service) (*service, error) {
	if svc.Name == "" || svc.Operations == nil || svc.Protocol < JSON11 || svc.Protocol > EC2 {
		return nil, errors.New("needs a Name, Operations and a Protocol other than S3")
	}
	s := &service{Service: svc, ops: map[string]operation{}, open: map[string]bool{}}
	s.namer, _ = svc.Operations.(ResourceNamer)
	v := reflect.ValueOf(svc.Operations)
	for i := range v.NumMethod() {
		name, call := v.Type().Method(i).Name, v.Method(i)
		t := call.Type()
		if t.NumIn() != 2 || !namedPointer(t.In(1), name+"Input") {
			continue
		}
		if t.In(0) != reflect.TypeFor[context.Context]() || t.NumOut() != 2 || !namedPointer(t.Out(0), name+"Output") || t.Out(1) != reflect.TypeFor[error]() {
			return nil, fmt.Errorf("%s takes a *%[1]sInput, but is not func(context.Context, *%[1]sInput) (*%[1]sOutput, error)", name)
		}
		if svc.Model != nil && !svc.Model.Has(name) {
			return nil, fmt.Errorf("%s is not an operation of its model", name)
		}
		for _, side := range []reflect.Type{t.In(1), t.Out(0)} {
			if err := checkType(side, svc.Protocol, nil); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		s.ops[name] = operation{name: name, in: t.In(1).Elem(), call: call}
	}
	for _, name := range svc.Open {
		if _, ok := s.ops[name]; !ok {
			return nil, fmt.Errorf("Open names %s, which is not an operation", name)
		}
		s.open[name] = true
	}
	return s, nil
}

func namedPointer(t reflect.Type, name string) bool {
	return t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && t.Elem().Name() == name
}

// checkType refuses types that the codecs do not carry.
func checkType(t reflect.Type, p Protocol, inside []reflect.Type) error {
	for _, outer := range inside {
		if outer == t {
			return fmt.Errorf("type %s contains itself", t)
		}
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64, reflect.Float64:
		return nil
	case reflect.Pointer:
		return checkType(t.Elem(), p, inside)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && p == JSON11 {
			return nil
		}
		return checkType(t.Elem(), p, inside)
	case reflect.Map:
		if p != JSON11 || t.Key().Kind() != reflect.String {
			break
		}
		return checkType(t.Elem(), p, inside)
	case reflect.Interface:
		if p == JSON11 && unions[t] != nil {
			return nil
		}
	case reflect.Struct:
		if t == timeType {
			return nil
		}
		w := wireOf(t, p)
		if len(w.byIn) != len(w.fields) {
			return fmt.Errorf("type %s has two fields with one name", t)
		}
		for _, f := range w.fields {
			if err := checkType(t.FieldByIndex(f.index).Type, p, append(inside, t)); err != nil {
				return fmt.Errorf("%s: %w", f.goName, err)
			}
		}
		return nil
	}
	return fmt.Errorf("type %s cannot be put on the wire", t)
}

var timeType = reflect.TypeFor[time.Time]()

// wireField is an exported field of a struct, or of a struct embedded in it, and its names on the wire.
type wireField struct {
	index     []int  // for FieldByIndex
	goName    string // for messages of ours
	in        string // the name in a request: a JSON member or a form parameter
	out       string // the name in an answer: a JSON member or an XML element
	item      string // Query and EC2: the element of a list
	omitempty bool   // Query and EC2: left out when it is the zero value
}

// wireStruct is a struct as a protocol sees it.
type wireStruct struct {
	fields []wireField
	byIn   map[string]wireField
}

type wireKey struct {
	t reflect.Type
	p Protocol
}

// wireStructs caches what wireOf has found; its size is bounded by the number of types.
var wireStructs sync.Map // wireKey -> *wireStruct

// wireOf lists the fields of a struct that travel. The SDK's ResultMetadata does not.
func wireOf(t reflect.Type, p Protocol) *wireStruct {
	if w, ok := wireStructs.Load(wireKey{t, p}); ok {
		return w.(*wireStruct)
	}
	w := &wireStruct{byIn: map[string]wireField{}}
	w.add(t, p, nil)
	for _, f := range w.fields {
		w.byIn[f.in] = f
	}
	wireStructs.Store(wireKey{t, p}, w)
	return w
}

func (w *wireStruct) add(t reflect.Type, p Protocol, outer []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(slices.Clone(outer), i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct && f.Type != timeType {
			w.add(f.Type, p, index)
			continue
		}
		if !f.IsExported() || f.Name == "ResultMetadata" {
			continue
		}
		wf := wireField{index: index, in: f.Name, out: f.Name, item: "item", goName: f.Name}
		if p == JSON11 {
			wf.in = jsonName(t, f.Name)
			wf.out = wf.in
			w.fields = append(w.fields, wf)
			continue
		}
		if p == EC2 {
			wf.out = strings.ToLower(f.Name[:1]) + f.Name[1:]
		} else {
			wf.item = "member"
		}
		if tag := f.Tag.Get("query"); tag != "" {
			wf.in = tag
		}
		name, options, _ := strings.Cut(f.Tag.Get("xml"), ",")
		wf.omitempty = options == "omitempty"
		if name, item, ok := strings.Cut(name, ">"); ok {
			wf.item = item
			wf.out = name
		} else if name != "" {
			wf.out = name
		}
		w.fields = append(w.fields, wf)
	}
}
