package awsapi

import (
	"fmt"
	"reflect"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/workspaces"
	"github.com/aws/aws-sdk-go-v2/service/workspaces/types"
)

// The SDK and the model must speak of the same operations and members, or a constraint would silently not be checked.
func TestModelFitsSDK(t *testing.T) {
	m := WorkSpacesModel()
	inSDK := map[string]bool{}
	for _, op := range sdkOperations() {
		inSDK[op.Name] = true
		if !m.Has(op.Name) {
			t.Errorf("%s is in the SDK and not in the model", op.Name)
			continue
		}
		if name := m.operations[op.Name]; name != "" {
			fits(t, m, op.Type.In(2).Elem(), m.shapes[name], op.Name)
		}
	}
	for name := range m.operations {
		if !inSDK[name] {
			t.Errorf("%s is in the model and not in the SDK", name)
		}
	}
}

func fits(t *testing.T, m *Model, typ reflect.Type, sh *shape, path string) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch typ.Kind() {
	case reflect.Interface:
		for _, member := range unions[typ] {
			if ref := sh.Members[unionMember(typ, member)]; ref != "" {
				f, _ := member.FieldByName("Value")
				fits(t, m, f.Type, m.shapes[ref], path+"."+member.Name())
			}
		}
	case reflect.Struct:
		for _, member := range sortedMembers(sh) {
			f, ok := wireOf(typ, JSON11).byIn[member]
			if !ok {
				t.Errorf("%s has no field for %s", path, member)
				continue
			}
			if ref := sh.Members[member]; ref != "" {
				fits(t, m, typ.FieldByIndex(f.index).Type, m.shapes[ref], path+"."+member)
			}
		}
	case reflect.Slice, reflect.Map:
		if ref := sh.List; ref != "" {
			fits(t, m, typ.Elem(), m.shapes[ref], path+"[]")
		}
		if sh.Pattern != "" || sh.Enum != nil || sh.Members != nil {
			t.Errorf("%s is a %s, its shape is not", path, typ)
		}
	default:
		if sh.List != "" || sh.Members != nil {
			t.Errorf("%s is a %s, its shape is not", path, typ)
		}
	}
}

// example makes a string that a shape accepts.
func example(t *testing.T, sh *shape) string {
	t.Helper()
	if len(sh.Enum) > 0 {
		return sh.Enum[0]
	}
	for n := range 1100 {
		s := strings.Repeat("a", n)
		if sh.re != nil {
			re, err := syntax.Parse(sh.re.String(), syntax.Perl)
			if err != nil {
				t.Fatal(err)
			}
			s = expand(re, n)
		}
		v := reflect.ValueOf(s)
		if s != "" && len(broken(v, sh)) == 0 {
			return s
		}
	}
	t.Fatalf("no example for pattern %q", sh.Pattern)
	return ""
}

// expand makes a string of a regular expression, with n rounds of whatever may be repeated.
func expand(re *syntax.Regexp, n int) string {
	repeat := func(low, high int) string {
		k := max(n, low)
		if high >= 0 {
			k = min(k, high)
		}
		return strings.Repeat(expand(re.Sub[0], n), k)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return string(re.Rune)
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if r > ' ' && r < 127 {
					return string(r)
				}
			}
		}
		return " "
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return "a"
	case syntax.OpCapture, syntax.OpAlternate:
		return expand(re.Sub[0], n)
	case syntax.OpConcat:
		var b strings.Builder
		for _, s := range re.Sub {
			b.WriteString(expand(s, n))
		}
		return b.String()
	case syntax.OpStar:
		return repeat(0, -1)
	case syntax.OpPlus:
		return repeat(1, -1)
	case syntax.OpQuest:
		return repeat(0, 1)
	case syntax.OpRepeat:
		return repeat(re.Min, re.Max)
	}
	return "" // anchors
}

// build makes a value of a type that its shape accepts; sh may be nil.
func build(t *testing.T, m *Model, v reflect.Value, sh *shape) {
	if sh == nil {
		sh = &shape{}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		build(t, m, v.Elem(), sh)
	case reflect.Interface:
		p := reflect.New(unions[v.Type()][0])
		build(t, m, p.Elem().FieldByName("Value"), m.shapes[sh.Members[unionMember(v.Type(), p.Type().Elem())]])
		v.Set(p)
	case reflect.Struct:
		if v.Type() == timeType {
			v.Set(reflect.ValueOf(testNow))
			return
		}
		for _, f := range wireOf(v.Type(), JSON11).fields {
			build(t, m, v.FieldByIndex(f.index), m.shapes[sh.Members[f.in]])
		}
	case reflect.Slice:
		n := 1
		if sh.Min != nil {
			n = max(n, int(*sh.Min))
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			build(t, m, v.Index(i), m.shapes[sh.List])
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		build(t, m, k, m.shapes[sh.Key])
		build(t, m, e, m.shapes[sh.List])
		v.SetMapIndex(k, e)
	case reflect.String:
		v.SetString(example(t, sh))
	case reflect.Int32, reflect.Int64:
		if sh.Min != nil {
			v.SetInt(*sh.Min)
		}
	}
}

// spoiler breaks the constraints of an input one by one.
type spoiler struct {
	t     *testing.T
	m     *Model
	op    string
	in    any
	count int
}

// expect holds the message to one violation, at a path and with a text. A length that is broken may break a pattern too.
func (s *spoiler) expect(path, want string) {
	s.t.Helper()
	s.count++
	err := s.m.Validate(s.op, s.in, JSON11)
	if code(err) != "ValidationException" || !strings.Contains(err.Error(), " at '"+path+"' failed to satisfy constraint: "+want) {
		s.t.Errorf("%s: %s: got %v, want %s", s.op, path, err, want)
	} else if n := strings.Count(err.Error(), "failed to satisfy"); n != 1 && !strings.Contains(want, "length") {
		s.t.Errorf("%s: %s: %d violations: %v", s.op, path, n, err)
	}
}

// with sets v to x, looks at what is reported, and sets it back.
func (s *spoiler) with(v, x reflect.Value, path, want string) {
	s.t.Helper()
	old := reflect.New(v.Type()).Elem()
	old.Set(v)
	v.Set(x)
	s.expect(path, want)
	v.Set(old)
}

func (s *spoiler) structure(v reflect.Value, sh *shape, path string) {
	for _, member := range sortedMembers(sh) {
		f := v.FieldByIndex(wireOf(v.Type(), JSON11).byIn[member].index)
		at := join(path, strings.ToLower(member[:1])+member[1:])
		if slices.Contains(sh.Required, member) && (f.Kind() == reflect.Pointer || f.Kind() == reflect.Slice || f.Kind() == reflect.String || f.Kind() == reflect.Interface) {
			s.with(f, reflect.Zero(f.Type()), at, "Member must not be null")
		}
		if ref := sh.Members[member]; ref != "" {
			s.value(f, s.m.shapes[ref], at)
		}
	}
}

func (s *spoiler) value(v reflect.Value, sh *shape, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		s.value(v.Elem(), sh, path)
	case reflect.Interface:
		name := unionMember(v.Type(), v.Elem().Type().Elem())
		s.value(v.Elem().Elem().FieldByName("Value"), s.m.shapes[sh.Members[name]], path+"."+strings.ToLower(name[:1])+name[1:])
	case reflect.Struct:
		s.structure(v, sh, path)
	case reflect.Slice:
		if sh.Max != nil {
			long := reflect.MakeSlice(v.Type(), int(*sh.Max)+1, int(*sh.Max)+1)
			for i := range long.Len() {
				long.Index(i).Set(v.Index(0))
			}
			s.with(v, long, path, fmt.Sprintf("Member must have length less than or equal to %d", *sh.Max))
		}
		if sh.Min != nil && *sh.Min > 0 {
			s.with(v, v.Slice(0, int(*sh.Min)-1), path, fmt.Sprintf("Member must have length greater than or equal to %d", *sh.Min))
		}
		sub := s.m.shapes[sh.List]
		if sub == nil {
			return
		}
		if k := v.Index(0).Kind(); k == reflect.Struct || k == reflect.Slice {
			s.value(v.Index(0), sub, path+".1.member")
			return
		}
		s.scalar(v.Index(0), sub, path, func(string) string {
			return "Member must satisfy constraint: [" + strings.Join(sub.words(), ", ") + "]"
		})
	default:
		s.scalar(v, sh, path, func(want string) string { return want })
	}
}

func (s *spoiler) scalar(v reflect.Value, sh *shape, path string, words func(string) string) {
	noun := "length"
	sized := func(n int64) reflect.Value {
		if v.Kind() != reflect.String {
			noun = "value"
			return reflect.ValueOf(n).Convert(v.Type())
		}
		return reflect.ValueOf(strings.Repeat("ü", int(n))).Convert(v.Type())
	}
	if sh.Max != nil {
		x := sized(*sh.Max + 1)
		s.with(v, x, path, words(fmt.Sprintf("Member must have %s less than or equal to %d", noun, *sh.Max)))
	}
	// A plain string that is empty is one that was not sent, so it has no length to break.
	if sh.Min != nil && (v.Kind() != reflect.String || *sh.Min > 0) {
		x := sized(*sh.Min - 1)
		s.with(v, x, path, words(fmt.Sprintf("Member must have %s greater than or equal to %d", noun, *sh.Min)))
	}
	if sh.Pattern != "" {
		n := int64(1)
		if sh.Min != nil {
			n = max(n, *sh.Min)
		}
		s.with(v, reflect.ValueOf(strings.Repeat("\n", int(n))).Convert(v.Type()), path, words("Member must satisfy regular expression pattern: "+sh.Pattern))
	}
	if len(sh.Enum) > 0 {
		s.with(v, reflect.ValueOf("NO_SUCH_VALUE").Convert(v.Type()), path, words("Member must satisfy enum value set: ["+strings.Join(sh.Enum, ", ")+"]"))
	}
}

// Every constraint of every member of every input: a good input has no violation, and each single change is reported.
func TestEveryConstraint(t *testing.T) {
	m := WorkSpacesModel()
	count := 0
	for _, op := range sdkOperations() {
		name := m.operations[op.Name]
		if name == "" {
			continue
		}
		in := reflect.New(op.Type.In(2).Elem())
		build(t, m, in.Elem(), m.shapes[name])
		if err := m.Validate(op.Name, in.Interface(), JSON11); err != nil {
			t.Errorf("%s: a good input: %v", op.Name, err)
			continue
		}
		s := &spoiler{t: t, m: m, op: op.Name, in: in.Interface()}
		s.structure(in.Elem(), m.shapes[name], "")
		if s.count == 0 {
			t.Errorf("%s: nothing was broken", op.Name)
		}
		count += s.count
	}
	if count < 700 {
		t.Errorf("only %d constraints were broken", count)
	}
	t.Logf("%d constraints", count)
}

func TestValidationTexts(t *testing.T) {
	m := WorkSpacesModel()
	image := func(f func(*workspaces.ImportWorkspaceImageInput)) error {
		in := importing("name")
		f(in)
		return m.Validate("ImportWorkspaceImage", in, JSON11)
	}
	long := strings.Repeat("x", 65)
	for _, tt := range []struct{ got, want error }{
		{image(func(in *workspaces.ImportWorkspaceImageInput) { in.ImageName = &long }),
			&Error{Code: "ValidationException", Message: "1 validation error detected: Value '" + long + "' at 'imageName' failed to satisfy constraint: Member must have length less than or equal to 64"}},
		{image(func(in *workspaces.ImportWorkspaceImageInput) { in.ImageName, in.Ec2ImageId = nil, nil }),
			&Error{Code: "ValidationException", Message: "2 validation errors detected: Value null at 'ec2ImageId' failed to satisfy constraint: Member must not be null; Value null at 'imageName' failed to satisfy constraint: Member must not be null"}},
		{m.Validate("CreateTags", &workspaces.CreateTagsInput{ResourceId: aws.String("ws-1"), Tags: []types.Tag{{Key: aws.String("k")}, {Key: aws.String("")}}}, JSON11),
			&Error{Code: "ValidationException", Message: "1 validation error detected: Value '' at 'tags.2.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1"}},
		{m.Validate("DescribeWorkspaces", &workspaces.DescribeWorkspacesInput{WorkspaceIds: []string{"ws-123456789", "x"}}, JSON11),
			&Error{Code: "ValidationException", Message: "1 validation error detected: Value '[ws-123456789, x]' at 'workspaceIds' failed to satisfy constraint: Member must satisfy constraint: [Member must satisfy regular expression pattern: ^ws-[0-9a-z]{8,63}$]"}},
		{m.Validate("DescribeWorkspaces", &workspaces.DescribeWorkspacesInput{Limit: aws.Int32(26)}, JSON11),
			&Error{Code: "ValidationException", Message: "1 validation error detected: Value '26' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 25"}},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("got  %v\nwant %v", tt.got, tt.want)
		}
	}
	// A message stays short, whatever it is about.
	many := make([]types.WorkspaceRequest, 25)
	err := m.Validate("CreateWorkspaces", &workspaces.CreateWorkspacesInput{Workspaces: many}, JSON11)
	if n := strings.Count(errText(err), "failed to satisfy"); n != maxViolations {
		t.Errorf("%d violations are listed", n)
	}
	huge := strings.Repeat("ü", 1<<20)
	if err := image(func(in *workspaces.ImportWorkspaceImageInput) { in.ImageName = &huge }); len(errText(err)) > 4<<10 {
		t.Errorf("%d bytes of message", len(errText(err)))
	}
	if err := (*Model)(nil).Validate("X", &struct{}{}, JSON11); err != nil {
		t.Errorf("no model: %v", err)
	}
}

// Patterns hold for the whole string, as AWS matches them.
func TestPatternsAreAnchored(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{`wsi-[0-9a-z]{9,63}$`, "wsi-abcdefghi", true}, {`wsi-[0-9a-z]{9,63}$`, "xwsi-abcdefghi", false}, {`wsi-[0-9a-z]{9,63}$`, "wsi-abcdefghi\n", false},
		{`^\d{12}|AMAZON$`, "AMAZON", true}, {`^\d{12}|AMAZON$`, "123456789012x", false},
		{`^[a-z]{0,1023}$`, strings.Repeat("a", 1023), true}, {`^[a-z]{0,1023}$`, strings.Repeat("a", 1024), false}, {`^[a-z]{0,1023}$`, "", true},
		{`^a[b\]]{2,2500}$`, "a" + strings.Repeat("]", 2500), true}, {`^a[b\]]{2,2500}$`, "a" + strings.Repeat("b", 2501), false}, {`^a[b\]]{2,2500}$`, "ab", false},
	} {
		re, err := compilePattern(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
		} else if re.MatchString(tt.s) != tt.want {
			t.Errorf("%s matches %.20q: %v", tt.pattern, tt.s, !tt.want)
		}
	}
	for _, bad := range []string{`[a]{0,20000}`, `[a]{2000,3000}`, `(`, `(?=a)`, `(ab){0,1023}`} {
		if _, err := compilePattern(bad); err == nil {
			t.Errorf("%s: compiled", bad)
		}
	}
}

func TestLoadModelRefuses(t *testing.T) {
	for _, bad := range []string{``, `[]`, `{"other":1}`, `{"operations":{"A":"B"}}`, `{"shapes":{"A":null}}`, `{"shapes":{"A":{"members":{"m":"B"}}}}`,
		`{"shapes":{"A":{"list":"B"}}}`, `{"shapes":{"A":{"key":"B"}}}`, `{"shapes":{"A":{"pattern":"("}}}`} {
		if _, err := LoadModel([]byte(bad)); err == nil {
			t.Errorf("%s: loaded", bad)
		}
	}
}
