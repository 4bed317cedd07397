package awsapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
)

// fill sets every exported field reachable from v to a value that is not its zero.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.Interface:
		members := unions[v.Type()]
		p := reflect.New(members[r.Intn(len(members))])
		fill(p.Elem().FieldByName("Value"), r)
		v.Set(p)
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(time.UnixMilli(1.7e12 + r.Int63n(1e12)).UTC()))
			return
		}
		for _, f := range wireOf(v.Type(), JSON11).fields {
			fill(v.FieldByIndex(f.index), r)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), r)
		fill(v.Index(1), r)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(k, r)
		fill(e, r)
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString([]string{"s", "ü<&>\"\\\n\t", "😀", "x y"}[r.Intn(4)])
	case reflect.Int32, reflect.Int64:
		v.SetInt(-r.Int63n(1 << 31))
	case reflect.Uint8:
		v.SetUint(uint64(r.Intn(256)))
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("fill does not know " + v.Type().String())
	}
}

// sdkOperations lists the methods of the SDK's client that are operations.
func sdkOperations() []reflect.Method {
	var ops []reflect.Method
	t := reflect.TypeFor[*workspaces.Client]()
	for i := range t.NumMethod() {
		m := t.Method(i)
		if m.Type.NumIn() == 4 && strings.HasSuffix(m.Type.In(2).String(), "."+m.Name+"Input") {
			ops = append(ops, m)
		}
	}
	return ops
}

// rewire makes a client whose requests go to a function.
type rewire func(*http.Request) (*http.Response, error)

func (f rewire) Do(r *http.Request) (*http.Response, error) { return f(r) }

func answer(body []byte) *http.Response {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", jsonType)
	_, _ = w.Write(body)
	return w.Result()
}

func sdkClient(do rewire) *workspaces.Client {
	return workspaces.New(workspaces.Options{Region: testRegion, HTTPClient: do, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return testCred, nil })})
}

// Every operation of the SDK, with every field filled, goes through the SDK's serialiser into our decoder and through
// our encoder into the SDK's deserialiser unchanged.
func TestEveryOperation(t *testing.T) {
	ops := sdkOperations()
	if len(ops) < 90 {
		t.Fatalf("only %d operations found", len(ops))
	}
	for i, m := range ops {
		for round := range 3 {
			r := rand.New(rand.NewSource(int64(3*i + round)))
			in, out := reflect.New(m.Type.In(2).Elem()), reflect.New(m.Type.Out(0).Elem())
			fill(in.Elem(), r)
			fill(out.Elem(), r)
			got := reflect.New(m.Type.In(2).Elem())
			c := sdkClient(func(req *http.Request) (*http.Response, error) {
				b, err := io.ReadAll(req.Body)
				if err != nil {
					return nil, err
				}
				if err := decodeJSON(b, got.Interface()); err != nil {
					return nil, err
				}
				b, err = encodeJSON(out.Interface())
				return answer(b), err
			})
			res := reflect.ValueOf(c).MethodByName(m.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), in})
			if err, _ := res[1].Interface().(error); err != nil {
				t.Errorf("%s: %v", m.Name, err)
				continue
			}
			res[0].Elem().FieldByName("ResultMetadata").SetZero()
			if !reflect.DeepEqual(got.Interface(), in.Interface()) {
				t.Errorf("%s: the input differs", m.Name)
			}
			if !reflect.DeepEqual(res[0].Interface(), out.Interface()) {
				t.Errorf("%s: the output differs", m.Name)
			}
		}
	}
}

// Every exception of the SDK arrives as its own type with its members.
func TestEveryException(t *testing.T) {
	all := []smithy.APIError{
		&types.AccessDeniedException{}, &types.ResourceNotFoundException{}, &types.ResourceAlreadyExistsException{}, &types.ResourceLimitExceededException{},
		&types.InvalidParameterValuesException{}, &types.OperationNotSupportedException{}, &types.InvalidResourceStateException{}, &types.ResourceUnavailableException{},
		&types.ResourceAssociatedException{}, &types.ResourceCreationFailedException{}, &types.ResourceInUseException{}, &types.OperationInProgressException{},
		&types.UnsupportedWorkspaceConfigurationException{}, &types.WorkspacesDefaultRoleNotFoundException{}, &types.UnsupportedNetworkConfigurationException{}, &types.ValidationException{},
		&types.ApplicationNotSupportedException{}, &types.ComputeNotCompatibleException{}, &types.ConflictException{}, &types.IncompatibleApplicationsException{},
		&types.InternalServerException{}, &types.InvalidParameterCombinationException{}, &types.OperatingSystemNotCompatibleException{},
	}
	// The model gives these no members, so the SDK does not read their message.
	bare := map[string]bool{"ApplicationNotSupportedException": true, "ComputeNotCompatibleException": true, "IncompatibleApplicationsException": true, "OperatingSystemNotCompatibleException": true}
	ops := sdkOperations()
	for _, e := range all {
		fill(reflect.ValueOf(e).Elem(), rand.New(rand.NewSource(1)))
		reflect.ValueOf(e).Elem().FieldByName("ErrorCodeOverride").SetZero()
		b, err := encodeJSONError(e)
		if err != nil {
			t.Fatal(err)
		}
		typed := false
		for _, m := range ops { // an operation that declares the exception gives its type
			c := sdkClient(func(*http.Request) (*http.Response, error) {
				res := answer(b)
				res.StatusCode = 400
				return res, nil
			})
			in := reflect.New(m.Type.In(2).Elem())
			fill(in.Elem(), rand.New(rand.NewSource(1)))
			res := reflect.ValueOf(c).MethodByName(m.Name).Call([]reflect.Value{reflect.ValueOf(t.Context()), in})
			got := reflect.New(reflect.TypeOf(e))
			if err, _ := res[1].Interface().(error); errors.As(err, got.Interface()) {
				typed = true
				if bare[e.ErrorCode()] {
					continue
				}
				if !reflect.DeepEqual(got.Elem().Interface(), e) {
					t.Errorf("%T differs: %s", e, b)
				}
			}
		}
		if !typed {
			t.Errorf("%T never arrived: %s", e, b)
		}
	}
}

func TestJSONForms(t *testing.T) {
	out := func(v any, want string) {
		t.Helper()
		b, err := encodeJSON(v)
		if err != nil || string(b) != want {
			t.Errorf("%s, %v, want %s", b, err, want)
		}
	}
	out(&workspaces.DescribeWorkspacesOutput{}, `{}`)
	out(&workspaces.DescribeWorkspacesOutput{Workspaces: []types.Workspace{}}, `{"Workspaces":[]}`)
	at := func(ms int64) *workspaces.DescribeWorkspaceSnapshotsOutput {
		x := time.UnixMilli(ms)
		return &workspaces.DescribeWorkspaceSnapshotsOutput{RebuildSnapshots: []types.Snapshot{{SnapshotTime: &x}}}
	}
	out(at(1662526214744), `{"RebuildSnapshots":[{"SnapshotTime":1662526214.744}]}`)
	out(at(1662526214000), `{"RebuildSnapshots":[{"SnapshotTime":1662526214}]}`)
	out(at(-1500), `{"RebuildSnapshots":[{"SnapshotTime":-1.5}]}`)
	out(&workspaces.DescribeTagsOutput{TagList: []types.Tag{{Key: aws.String("<&>"), Value: aws.String("")}}}, `{"TagList":[{"Key":"<&>","Value":""}]}`)
	out(&workspaces.ImportWorkspaceImageOutput{ImageId: aws.String("wsi-1")}, `{"ImageId":"wsi-1"}`)
}

func TestJSONRefusals(t *testing.T) {
	for _, tt := range []struct {
		in   any
		body string
		want string
	}{
		{&workspaces.DescribeWorkspacesInput{}, `{"Limit":"5"}`, "STRING_VALUE can not be converted to a Number (member Limit)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"Limit":5.5}`, "5.5 is not an Integer of 32 bits (member Limit)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"Limit":4294967296}`, "4294967296 is not an Integer of 32 bits (member Limit)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"WorkspaceIds":"ws-1"}`, "STRING_VALUE can not be converted to a list (member WorkspaceIds)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"WorkspaceIds":["a",true]}`, "TRUE_VALUE can not be converted to a String (member WorkspaceIds.2)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"WorkspaceIds":{}}`, "START_OBJECT can not be converted to a list"},
		{&workspaces.DescribeWorkspacesInput{}, `{"WorkspaceIds":["a"`, "Unexpected end of JSON at byte 20"},
		{&workspaces.DescribeWorkspacesInput{}, `{"WorkspaceIds":["a",]}`, "not valid JSON at byte"},
		{&workspaces.DescribeWorkspacesInput{}, `{Limit:1}`, "not valid JSON at byte"},
		{&workspaces.DescribeWorkspacesInput{}, `null`, "not a JSON object"},
		{&workspaces.DescribeWorkspacesInput{}, "{\"UserName\":\"\xff\"}", "not valid UTF-8"},
		{&workspaces.DescribeWorkspacesInput{}, `{"UserName":"a\u0000b"}`, "NUL is no character of a String (member UserName)"},
		{&workspaces.DescribeWorkspacesInput{}, `{"Other":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, "nested deeper than 64"},
		{&workspaces.CreateTagsInput{}, `{"Tags":[{}` + strings.Repeat(",{}", maxJSONList) + `]}`, "A list has more than 10000 elements (member Tags)"},
		{&workspaces.CreateTagsInput{}, `{"Tags":[[]]}`, "START_ARRAY can not be converted to a structure (member Tags.1)"},
		{&workspaces.ImportCustomWorkspaceImageInput{}, `{"ImageSource":{}}`, "No member of a union (member ImageSource)"},
		{&workspaces.ImportCustomWorkspaceImageInput{}, `{"ImageSource":{"Other":"x"}}`, "Unknown member 'Other' of a union (member ImageSource)"},
		{&workspaces.ImportCustomWorkspaceImageInput{}, `{"ImageSource":{"Ec2ImageId":"x","Ec2ImportTaskId":"y"}}`, "More than one member of a union (member ImageSource)"},
		{&workspaces.ImportClientBrandingInput{}, `{"DeviceTypeWindows":{"Logo":"*"}}`, "The Blob is not base64 (member DeviceTypeWindows.Logo)"},
	} {
		err := decodeJSON([]byte(tt.body), tt.in)
		if code(err) != "SerializationException" || !strings.Contains(errText(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.body, err, tt.want)
		}
	}
	// What AWS takes: members it does not know, null for absent, an empty list.
	in := &workspaces.DescribeWorkspacesInput{}
	if err := decodeJSON([]byte(` {"Other":{"a":[{}]},"limit":3,"Limit":null,"WorkspaceIds":[],"UserName":"u"} `), in); err != nil || in.Limit != nil || in.WorkspaceIds == nil || *in.UserName != "u" {
		t.Errorf("%+v, %v", in, err)
	}
}

func FuzzJSON(f *testing.F) {
	ops := sdkOperations()
	for i, m := range ops {
		in := reflect.New(m.Type.In(2).Elem())
		fill(in.Elem(), rand.New(rand.NewSource(int64(i))))
		b, err := encodeJSON(in.Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, b)
	}
	for _, hostile := range []string{"", "{", `{"Tags":[{"Key":`, "[[[[", `{"ResourceId":1e999}`, "\xff", `{"a":{"b":{}}}{`, `{"ImageSource":{"Ec2ImageId":null}}`} {
		f.Add(0, []byte(hostile))
	}
	f.Fuzz(func(t *testing.T, n int, body []byte) {
		m := ops[uint(n)%uint(len(ops))]
		in := reflect.New(m.Type.In(2).Elem())
		if err := decodeJSON(body, in.Interface()); err != nil {
			if code(err) != "SerializationException" {
				t.Fatal(err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatalf("not JSON, but taken: %q", body)
		}
		// What was understood is understood again, and can be validated.
		b, err := encodeJSON(in.Interface())
		if err != nil {
			t.Fatal(err)
		}
		again := reflect.New(m.Type.In(2).Elem())
		if err := decodeJSON(b, again.Interface()); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		_ = WorkSpacesModel().Validate(m.Name, in.Interface(), JSON11)
	})
}
