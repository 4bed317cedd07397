package awsapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
	"github.com/aws/smithy-go"
)

// The JSON 1.1 codec works on the SDK's own types. A member's name is the Go field's name but for those in renamed;
// timestamps are seconds since 1970 with milliseconds; blobs are base64; a nil list is left out and an empty one is [].

// renamed lists the members of service/workspaces whose name on the wire is not the Go field's. The test that takes
// every operation through the SDK's client would fail for one that is missing.
var renamed = map[reflect.Type]map[string]string{
	reflect.TypeFor[types.IpRuleItem]():         {"IpRule": "ipRule", "RuleDesc": "ruleDesc"},
	reflect.TypeFor[types.WorkspacesIpGroup]():  {"GroupId": "groupId", "GroupName": "groupName", "GroupDesc": "groupDesc", "UserRules": "userRules"},
	reflect.TypeFor[types.WorkspaceDirectory](): {"IpGroupIds": "ipGroupIds"},
}

func jsonName(t reflect.Type, field string) string {
	if n, ok := renamed[t][field]; ok {
		return n
	}
	return field
}

// unions lists the SDK's union interfaces and their members, each a struct with a Value.
var unions = map[reflect.Type][]reflect.Type{
	reflect.TypeFor[types.ImageSourceIdentifier](): {
		reflect.TypeFor[types.ImageSourceIdentifierMemberEc2ImageId](),
		reflect.TypeFor[types.ImageSourceIdentifierMemberEc2ImportTaskId](),
		reflect.TypeFor[types.ImageSourceIdentifierMemberImageBuildVersionArn](),
	},
}

// unionMember is the wire's name of a member of a union.
func unionMember(union, member reflect.Type) string {
	return strings.TrimPrefix(member.Name(), union.Name()+"Member")
}

const (
	maxJSONDepth = 64           // ours; the deepest input of WorkSpaces is six deep
	maxJSONList  = 10_000       // ours; it bounds what a short "[{},{},..." unfolds to
	lastSecond   = 253402300799 // 9999-12-31T23:59:59Z, the last second that a timestamp can name
	firstSecond  = -lastSecond  // symmetric, ours
	jsonType     = "application/x-amz-json-1.1"
	serialize    = "SerializationException"
)

// decodeJSON fills in, a pointer to a struct, from a JSON document. Members that the struct does not have are skipped,
// as AWS does; everything else that does not fit is a SerializationException that names the member.
func decodeJSON(b []byte, in any) error {
	if !utf8.Valid(b) {
		return &Error{Code: serialize, Message: "The request body is not valid UTF-8"}
	}
	d := jsonDecoder{json.NewDecoder(bytes.NewReader(b))}
	d.UseNumber()
	t, err := d.token()
	if err != nil {
		return err
	}
	if t != json.Delim('{') {
		return d.bad("", "The request body is not a JSON object")
	}
	if err := d.object(reflect.ValueOf(in).Elem(), ""); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return d.bad("", "Unexpected data after the request's JSON object")
	}
	return nil
}

type jsonDecoder struct{ *json.Decoder }

func (d jsonDecoder) bad(path, format string, args ...any) error {
	where := ""
	if path != "" {
		where = " (member " + path + ")"
	}
	return &Error{Code: serialize, Message: fmt.Sprintf(format, args...) + where}
}

func (d jsonDecoder) token() (json.Token, error) {
	t, err := d.Token()
	if err == io.EOF {
		return nil, d.bad("", "Unexpected end of JSON at byte %d", d.InputOffset())
	}
	if err != nil {
		return nil, d.bad("", "The request body is not valid JSON at byte %d", d.InputOffset())
	}
	return t, nil
}

// names calls f for every name of an object that has been opened.
func (d jsonDecoder) names(f func(name string) error) error {
	for d.More() {
		t, err := d.token()
		if err != nil {
			return err
		}
		name, _ := t.(string) // the decoder lets nothing else stand here
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

func (d jsonDecoder) object(v reflect.Value, path string) error {
	fields := wireOf(v.Type(), JSON11).byIn
	return d.names(func(name string) error {
		f, ok := fields[name]
		if !ok {
			return d.skip()
		}
		return d.value(v.FieldByIndex(f.index), join(path, name))
	})
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// skip reads one value and forgets it.
func (d jsonDecoder) skip() error {
	for depth := 0; ; {
		t, err := d.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxJSONDepth {
				return d.bad("", "The request body is nested deeper than %d", maxJSONDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

// value reads one value into v. The depth is bounded by the type, which does not contain itself (checkType).
func (d jsonDecoder) value(v reflect.Value, path string) error {
	t, err := d.token()
	if err != nil || t == nil { // null is the same as absent
		return err
	}
	for v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch {
	case v.Type() == timeType:
		n, ok := t.(json.Number)
		if !ok {
			return d.bad(path, "%s can not be converted to a Timestamp", tokenName(t))
		}
		s, err := n.Float64()
		if err != nil || s < firstSecond || s > lastSecond {
			return d.bad(path, "%s is not a Timestamp", printable(n.String()))
		}
		v.Set(reflect.ValueOf(time.UnixMilli(int64(math.Round(s * 1000))).UTC()))
		return nil
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		s, ok := t.(string)
		if !ok {
			return d.bad(path, "%s can not be converted to a Blob", tokenName(t))
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return d.bad(path, "The Blob is not base64")
		}
		v.SetBytes(b)
		return nil
	}
	switch v.Kind() {
	case reflect.Struct:
		if t != json.Delim('{') {
			return d.bad(path, "%s can not be converted to a structure", tokenName(t))
		}
		return d.object(v, path)
	case reflect.Interface:
		if t != json.Delim('{') {
			return d.bad(path, "%s can not be converted to a union", tokenName(t))
		}
		return d.union(v, path)
	case reflect.Map:
		if t != json.Delim('{') {
			return d.bad(path, "%s can not be converted to a map", tokenName(t))
		}
		v.Set(reflect.MakeMap(v.Type()))
		return d.names(func(name string) error {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := d.value(e, join(path, "value")); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
			return nil
		})
	case reflect.Slice:
		if t != json.Delim('[') {
			return d.bad(path, "%s can not be converted to a list", tokenName(t))
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		for d.More() {
			if v.Len() == maxJSONList {
				return d.bad(path, "A list has more than %d elements", maxJSONList)
			}
			e := reflect.New(v.Type().Elem()).Elem()
			if err := d.value(e, path+"."+strconv.Itoa(v.Len()+1)); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
		_, err := d.token()
		return err
	}
	return d.scalar(v, t, path)
}

func (d jsonDecoder) scalar(v reflect.Value, t json.Token, path string) error {
	switch v.Kind() {
	case reflect.String:
		if s, ok := t.(string); ok {
			if strings.Contains(s, "\x00") {
				return d.bad(path, "NUL is no character of a String") // no database takes it for text
			}
			v.SetString(s)
			return nil
		}
		return d.bad(path, "%s can not be converted to a String", tokenName(t))
	case reflect.Bool:
		if b, ok := t.(bool); ok {
			v.SetBool(b)
			return nil
		}
		return d.bad(path, "%s can not be converted to a Boolean", tokenName(t))
	}
	n, ok := t.(json.Number)
	if !ok {
		return d.bad(path, "%s can not be converted to a Number", tokenName(t))
	}
	if v.Kind() == reflect.Float64 {
		f, err := n.Float64()
		if err != nil {
			return d.bad(path, "%s is not a Double", printable(n.String()))
		}
		v.SetFloat(f)
		return nil
	}
	i, err := n.Int64()
	if err != nil || v.OverflowInt(i) {
		return d.bad(path, "%s is not an Integer of %d bits", printable(n.String()), v.Type().Bits())
	}
	v.SetInt(i)
	return nil
}

// union reads an object that must have exactly one member.
func (d jsonDecoder) union(v reflect.Value, path string) error {
	err := d.names(func(name string) error {
		i := slices.IndexFunc(unions[v.Type()], func(t reflect.Type) bool { return unionMember(v.Type(), t) == name })
		if i < 0 {
			return d.bad(path, "Unknown member '%s' of a union", printable(name))
		}
		if !v.IsNil() {
			return d.bad(path, "More than one member of a union")
		}
		p := reflect.New(unions[v.Type()][i])
		v.Set(p)
		return d.value(p.Elem().FieldByName("Value"), join(path, name))
	})
	if err == nil && v.IsNil() {
		return d.bad(path, "No member of a union")
	}
	return err
}

// tokenName calls a token what AWS's own parser does.
func tokenName(t json.Token) string {
	switch v := t.(type) {
	case string:
		return "STRING_VALUE"
	case json.Number:
		return "NUMBER_VALUE"
	case bool:
		return strings.ToUpper(strconv.FormatBool(v)) + "_VALUE"
	}
	if t == json.Delim('[') {
		return "START_ARRAY"
	}
	return "START_OBJECT"
}

// encodeJSON writes an operation's output.
func encodeJSON(out any) ([]byte, error) { return marshalJSON(jsonValue(reflect.ValueOf(out))) }

func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// encodeJSONError writes an error: its code as __type, its message, and the further members of an SDK exception
// (ResourceId, reason).
func encodeJSONError(err smithy.APIError) ([]byte, error) {
	body := map[string]any{}
	switch err.(type) {
	case *Error, *smithy.GenericAPIError:
	default:
		if m, ok := jsonValue(reflect.ValueOf(err)).(map[string]any); ok {
			body = m
		}
		if reason, ok := body["Reason"]; ok {
			delete(body, "Reason")
			body["reason"] = reason
		}
		delete(body, "Message")
		delete(body, "ErrorCodeOverride")
	}
	body["__type"] = err.ErrorCode()
	body["message"] = err.ErrorMessage()
	return marshalJSON(body)
}

// jsonValue turns a value of the SDK's types into one that encoding/json writes as AWS does; nil means left out.
func jsonValue(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return jsonValue(v.Elem())
	case reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if member := v.Elem().Type(); unions[v.Type()] != nil && member.Kind() == reflect.Pointer {
			return map[string]any{unionMember(v.Type(), member.Elem()): jsonValue(v.Elem().Elem().FieldByName("Value"))}
		}
		return jsonValue(v.Elem())
	case reflect.Struct:
		if v.Type() == timeType {
			ms := v.Interface().(time.Time).UnixMilli()
			return json.Number(strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64))
		}
		m := map[string]any{}
		for _, f := range wireOf(v.Type(), JSON11).fields {
			field := v.FieldByIndex(f.index)
			if field.Kind() == reflect.String && field.Len() == 0 {
				continue // an enum that is not set
			}
			if w := jsonValue(field); w != nil {
				m[f.out] = w
			}
		}
		return m
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return base64.StdEncoding.EncodeToString(v.Bytes())
		}
		s := make([]any, v.Len())
		for i := range s {
			s[i] = jsonValue(v.Index(i))
		}
		return s
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		m := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = jsonValue(it.Value())
		}
		return m
	}
	return v.Interface()
}
