package awsapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

//go:generate go run ./modelgen -in $BOTOCORE_MODELS/workspaces-2015-04-08.json -out models/workspaces.json
//go:generate go run ./modelgen -in $BOTOCORE_MODELS/ec2-2016-11-15-import-subset.json -out models/ec2.json

var (
	//go:embed models/workspaces.json
	workspacesJSON []byte
	//go:embed models/ec2.json
	ec2JSON []byte
)

// WorkSpacesModel returns the constraints of Amazon WorkSpaces, API version 2015-04-08.
func WorkSpacesModel() *Model { return workspacesModel() }

// EC2Model returns the constraints of the operations of Amazon EC2 that have to do with images, API version 2016-11-15.
func EC2Model() *Model { return ec2Model() }

var (
	workspacesModel = sync.OnceValue(func() *Model { return mustLoad(workspacesJSON) })
	ec2Model        = sync.OnceValue(func() *Model { return mustLoad(ec2JSON) })
)

// mustLoad panics on an embedded table that cannot be read, which only a change to the table can bring about.
func mustLoad(b []byte) *Model {
	m, err := LoadModel(b)
	if err != nil {
		panic(err)
	}
	return m
}

// Model is what a service's model says about the inputs of its operations: names and limits, nothing else. The nil
// Model has no constraints. Its tables are made by modelgen from botocore's models.
type Model struct {
	operations map[string]string
	shapes     map[string]*shape
}

// shape is a constrained type. Which of its parts are set tells what it is.
type shape struct {
	Members  map[string]string `json:"members,omitempty"`  // structure or union: shapes of the members that have constraints, by their names in a request
	Required []string          `json:"required,omitempty"` // structure
	List     string            `json:"list,omitempty"`     // list or map: shape of the elements
	Key      string            `json:"key,omitempty"`      // map: shape of the keys
	Min      *int64            `json:"min,omitempty"`      // length of a string (characters), blob (bytes), list or map; value of a number
	Max      *int64            `json:"max,omitempty"`
	Pattern  string            `json:"pattern,omitempty"`
	Enum     []string          `json:"enum,omitempty"`

	re *regexp.Regexp
}

// LoadModel reads a table that modelgen has written.
func LoadModel(b []byte) (*Model, error) {
	var in struct {
		Source     string            `json:"source"`
		Operations map[string]string `json:"operations"` // operation: shape of its input, "" when that has no constraints
		Shapes     map[string]*shape `json:"shapes"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m := &Model{operations: in.Operations, shapes: in.Shapes}
	known := func(name string) bool { return name == "" || m.shapes[name] != nil }
	for op, name := range m.operations {
		if !known(name) {
			return nil, fmt.Errorf("model: operation %s: no shape %q", op, name)
		}
	}
	for name, s := range m.shapes {
		if s == nil {
			return nil, fmt.Errorf("model: shape %s is null", name)
		}
		for member, ref := range s.Members {
			if !known(ref) {
				return nil, fmt.Errorf("model: shape %s.%s: no shape %q", name, member, ref)
			}
		}
		if !known(s.List) || !known(s.Key) {
			return nil, fmt.Errorf("model: shape %s: no shape %q or %q", name, s.List, s.Key)
		}
		if s.Pattern != "" {
			re, err := compilePattern(s.Pattern)
			if err != nil {
				return nil, fmt.Errorf("model: shape %s: %w", name, err)
			}
			s.re = re
		}
	}
	return m, nil
}

// Has tells whether AWS has the operation, whether or not Berth does.
func (m *Model) Has(operation string) bool {
	_, ok := m.operations[operation]
	return ok
}

// longRepeat finds a character class or character that is repeated more often than RE2 allows in one go.
var longRepeat = regexp.MustCompile(`(\[(?:\\.|[^\]\\])+\]|\\.|[^\\()\[\]{}|*+?])\{(\d+),(\d{4,})\}`)

// compilePattern turns a pattern of the model into one that matches the whole string, as AWS's own matching does. RE2
// repeats at most 1000 times at once, so x{0,1023} becomes x{0,1000}x{0,23}.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	const most = 1000
	var bad error
	p := longRepeat.ReplaceAllStringFunc(pattern, func(s string) string {
		g := longRepeat.FindStringSubmatch(s)
		low, err1 := strconv.Atoi(g[2])
		high, err2 := strconv.Atoi(g[3])
		if err1 != nil || err2 != nil || low > most || high > 10*most {
			bad = fmt.Errorf("pattern %q repeats too often", pattern)
			return s
		}
		var b strings.Builder
		for ; high > 0; low, high = 0, high-most {
			fmt.Fprintf(&b, "%s{%d,%d}", g[1], low, min(high, most))
		}
		return b.String()
	})
	if bad != nil {
		return nil, bad
	}
	return regexp.Compile(`\A(?:` + p + `)\z`)
}

const (
	maxViolations = 10  // reported at once; ours
	maxShown      = 256 // characters of a value that a message shows; ours
)

// violation is one broken constraint.
type violation struct {
	path, value string
	constraint  string // AWS's words
	missing     bool
}

// Validate checks a decoded input, a pointer to a struct, against the operation's constraints. The error is AWS's for
// the protocol: a ValidationException that lists up to ten violations, or EC2's MissingParameter and InvalidParameterValue.
func (m *Model) Validate(operation string, in any, p Protocol) error {
	if m == nil || m.operations[operation] == "" {
		return nil
	}
	v := validator{model: m, protocol: p}
	v.structure(reflect.ValueOf(in).Elem(), m.shapes[m.operations[operation]], "")
	if len(v.found) == 0 {
		return nil
	}
	if p == EC2 {
		f := v.found[0]
		if f.missing {
			return &Error{Code: "MissingParameter", Message: "The request must contain the parameter " + f.path}
		}
		return &Error{Code: "InvalidParameterValue", Message: fmt.Sprintf("Value (%s) for parameter %s is invalid. %s", f.value, f.path, f.constraint)}
	}
	texts := make([]string, len(v.found))
	for i, f := range v.found {
		value := "null"
		if !f.missing {
			value = "'" + f.value + "'"
		}
		texts[i] = fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, f.path, f.constraint)
	}
	noun := "errors"
	if len(texts) == 1 {
		noun = "error"
	}
	code := "ValidationException"
	if p == Query {
		code = "ValidationError"
	}
	return &Error{Code: code, Message: fmt.Sprintf("%d validation %s detected: %s", len(texts), noun, strings.Join(texts, "; "))}
}

// validator walks an input beside its shape. The walk ends because the input, decoded from a bounded body, does.
type validator struct {
	model    *Model
	protocol Protocol
	found    []violation
}

func (v *validator) add(f violation) {
	if len(v.found) < maxViolations {
		v.found = append(v.found, f)
	}
}

// memberPath is AWS's way to name a member: small first letter in JSON, as in the form for EC2.
func (v *validator) memberPath(path, member string) string {
	if v.protocol != EC2 {
		r, n := utf8.DecodeRuneInString(member)
		member = string(unicode.ToLower(r)) + member[n:]
	}
	return join(path, member)
}

// structure checks the members of a structure, in the order of their names.
func (v *validator) structure(s reflect.Value, sh *shape, path string) {
	fields := wireOf(s.Type(), v.protocol).byIn
	for _, member := range sortedMembers(sh) {
		at := v.memberPath(path, member)
		var value reflect.Value
		if f, ok := fields[member]; ok {
			value = s.FieldByIndex(f.index)
		}
		if !value.IsValid() || absent(value) { // a member without a field cannot have been sent
			if slices.Contains(sh.Required, member) {
				v.add(violation{path: at, constraint: "Member must not be null", missing: true})
			}
			continue
		}
		if ref := sh.Members[member]; ref != "" {
			v.value(value, v.model.shapes[ref], at)
		}
	}
}

func sortedMembers(sh *shape) []string {
	names := slices.Clone(sh.Required)
	for name := range sh.Members {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// absent tells whether a member was not sent. An enum is a plain string, for which empty means that.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return v.IsNil()
	case reflect.String:
		return v.Len() == 0
	}
	return false
}

func (v *validator) value(value reflect.Value, sh *shape, path string) {
	if value.Kind() == reflect.Interface { // a union: pointer to struct with Value
		member := value.Elem().Elem()
		if ref := sh.Members[unionMember(value.Type(), member.Type())]; ref != "" {
			v.value(member.FieldByName("Value"), v.model.shapes[ref], v.memberPath(path, unionMember(value.Type(), member.Type())))
		}
		return
	}
	value = reflect.Indirect(value)
	for _, c := range broken(value, sh) {
		v.add(violation{path: path, value: shown(value), constraint: c})
	}
	switch value.Kind() {
	case reflect.Struct:
		if value.Type() != timeType {
			v.structure(value, sh, path)
		}
	case reflect.Slice:
		if sh.List != "" {
			v.list(value, v.model.shapes[sh.List], path)
		}
	case reflect.Map:
		v.entries(value, sh, path)
	}
}

// list checks the elements. AWS reports a list of plain values as a whole, and structures one by one.
func (v *validator) list(l reflect.Value, sh *shape, path string) {
	for i := range l.Len() {
		e := l.Index(i)
		if e.Kind() == reflect.Struct && e.Type() != timeType || e.Kind() == reflect.Slice {
			at := path + "." + strconv.Itoa(i+1)
			if v.protocol != EC2 {
				at += ".member"
			}
			v.value(e, sh, at)
			continue
		}
		if len(broken(reflect.Indirect(e), sh)) > 0 {
			v.add(violation{path: path, value: shown(l), constraint: "Member must satisfy constraint: [" + strings.Join(sh.words(), ", ") + "]"})
			return
		}
	}
}

func (v *validator) entries(m reflect.Value, sh *shape, path string) {
	for it := m.MapRange(); it.Next(); {
		if key := v.model.shapes[sh.Key]; key != nil && len(broken(it.Key(), key)) > 0 {
			v.add(violation{path: path, value: shown(it.Key()), constraint: "Map keys must satisfy constraint: [" + strings.Join(key.words(), ", ") + "]"})
		}
		if e := v.model.shapes[sh.List]; e != nil {
			v.value(it.Value(), e, path+"."+printable(it.Key().String())+".member")
		}
	}
}

// words is what AWS calls a shape's constraints, in the order in which they are checked.
func (s *shape) words() []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	if s.Max != nil {
		add("Member must have length less than or equal to %d", *s.Max)
	}
	if s.Min != nil {
		add("Member must have length greater than or equal to %d", *s.Min)
	}
	if s.Pattern != "" {
		add("Member must satisfy regular expression pattern: %s", s.Pattern)
	}
	if len(s.Enum) > 0 {
		add("Member must satisfy enum value set: [%s]", strings.Join(s.Enum, ", "))
	}
	return w
}

// broken lists the constraints that a value does not keep, its elements and members aside.
func broken(v reflect.Value, s *shape) []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	noun, size, measured := "length", int64(0), true
	switch v.Kind() {
	case reflect.String:
		size = int64(utf8.RuneCountInString(v.String()))
	case reflect.Slice, reflect.Map:
		size = int64(v.Len())
	case reflect.Int32, reflect.Int64:
		noun, size = "value", v.Int()
	default:
		measured = false
	}
	if s.Max != nil && measured && size > *s.Max {
		add("Member must have %s less than or equal to %d", noun, *s.Max)
	}
	if s.Min != nil && measured && size < *s.Min {
		add("Member must have %s greater than or equal to %d", noun, *s.Min)
	}
	if v.Kind() == reflect.String {
		if s.re != nil && !s.re.MatchString(v.String()) {
			add("Member must satisfy regular expression pattern: %s", s.Pattern)
		}
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, v.String()) {
			add("Member must satisfy enum value set: [%s]", strings.Join(s.Enum, ", "))
		}
	}
	return w
}

// shown is a value as a message quotes it, cut short.
func shown(v reflect.Value) string {
	v = reflect.Indirect(v)
	var text string
	switch {
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		text = fmt.Sprintf("%d bytes", v.Len())
	case v.Kind() == reflect.Slice:
		parts := make([]string, 0, min(v.Len(), maxViolations))
		for i := range v.Len() {
			if i == maxViolations {
				parts = append(parts, "...")
				break
			}
			parts = append(parts, shown(v.Index(i)))
		}
		text = "[" + strings.Join(parts, ", ") + "]"
	case v.Kind() == reflect.Struct:
		text = v.Type().Name()
	default:
		text = fmt.Sprint(v.Interface())
	}
	if r := []rune(text); len(r) > maxShown {
		text = string(r[:maxShown]) + "..."
	}
	return text
}
