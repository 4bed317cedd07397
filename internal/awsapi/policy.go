package awsapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// AdministratorAccess is the policy that allows everything, by the name that AWS's managed policy bears.
const AdministratorAccess = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`

const (
	maxPolicy      = 6144 // characters, the size quota of a managed policy ("IAM and AWS STS quotas")
	maxPolicyDepth = 16   // ours; a policy without conditions is four deep
)

// Policy is an identity-based IAM policy: what its user may do. The nil Policy allows nothing.
type Policy struct {
	text       string
	statements []statement
}

type statement struct {
	allow                  bool
	actions, resources     []string // actions in lower case
	notAction, notResource bool
}

// Decision is a policy's answer.
type Decision int

// The decisions. An explicit deny is stronger than any allow, and what no statement mentions is denied.
const (
	ImplicitlyDenied Decision = iota // no statement allows it
	Denied                           // a statement denies it
	Allowed
)

// Decide evaluates the policy for one action ("ec2:DescribeImages", whatever its case) on one resource (an ARN or "*").
func (p *Policy) Decide(action, resource string) Decision {
	d := ImplicitlyDenied
	if p == nil {
		return d
	}
	action = strings.ToLower(action)
	for _, s := range p.statements {
		if matchAny(s.actions, action) == s.notAction || matchAny(s.resources, resource) == s.notResource {
			continue
		}
		if !s.allow {
			return Denied
		}
		d = Allowed
	}
	return d
}

// String returns the document that the policy was parsed from.
func (p *Policy) String() string {
	if p == nil {
		return ""
	}
	return p.text
}

func matchAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Wildcard(p, s) })
}

// Wildcard matches a pattern as IAM's policies and EC2's filters have them: * (any characters, also none) and ? (one
// character), in at most len(pattern)*len(s) steps: after a mismatch only the last star can take more.
func Wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if p < len(pattern) {
			q, m := utf8.DecodeRuneInString(pattern[p:])
			if q == '?' || q == r && m == n {
				p, i = p+m, i+n
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, n = utf8.DecodeRuneInString(s[mark:])
		mark += n
		p, i = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// ParsePolicy reads a policy document. It fails closed: an element that Berth would not evaluate (Condition,
// Principal, a policy variable, any unknown or repeated name) is an error, not something to skip, since a policy
// that means less than it says would allow more.
func ParsePolicy(document string) (*Policy, error) {
	if !utf8.ValidString(document) {
		return nil, errors.New("policy: not valid UTF-8")
	}
	if n := utf8.RuneCountInString(document); n > maxPolicy {
		return nil, fmt.Errorf("policy: %d characters, more than %d", n, maxPolicy)
	}
	if err := checkNames(document); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	var doc struct {
		Version   string          `json:"Version"`
		ID        string          `json:"Id"`
		Statement json.RawMessage `json:"Statement"`
	}
	if err := strict([]byte(document), &doc); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	// Without Version, IAM takes 2008-10-17.
	if doc.Version != "2012-10-17" && doc.Version != "2008-10-17" && doc.Version != "" {
		return nil, fmt.Errorf("policy: Version %q is neither 2012-10-17 nor 2008-10-17", doc.Version)
	}
	if len(doc.Statement) == 0 {
		return nil, errors.New("policy: Statement is missing")
	}
	raw := []json.RawMessage{doc.Statement}
	if doc.Statement[0] == '[' { // an empty list allows nothing
		raw = nil
		if err := strict(doc.Statement, &raw); err != nil {
			return nil, fmt.Errorf("policy: Statement: %w", err)
		}
	}
	p := &Policy{text: document}
	for i, b := range raw {
		s, err := parseStatement(b)
		if err != nil {
			return nil, fmt.Errorf("policy: Statement %d: %w", i+1, err)
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func parseStatement(b []byte) (statement, error) {
	var in struct {
		Sid         string  `json:"Sid"`
		Effect      string  `json:"Effect"`
		Action      strList `json:"Action"`
		NotAction   strList `json:"NotAction"`
		Resource    strList `json:"Resource"`
		NotResource strList `json:"NotResource"`
	}
	if err := strict(b, &in); err != nil {
		return statement{}, err
	}
	s := statement{allow: in.Effect == "Allow", notAction: in.NotAction != nil, notResource: in.NotResource != nil}
	switch {
	case in.Effect != "Allow" && in.Effect != "Deny":
		return s, fmt.Errorf("Effect %q is neither Allow nor Deny", in.Effect)
	case (in.Action != nil) == (in.NotAction != nil):
		return s, errors.New("exactly one of Action and NotAction is required")
	case (in.Resource != nil) == (in.NotResource != nil):
		return s, errors.New("exactly one of Resource and NotResource is required")
	}
	for _, a := range append(in.Action, in.NotAction...) {
		service, name, ok := strings.Cut(a, ":")
		if a != "*" && (!ok || service == "" || name == "" || strings.ContainsAny(a, "${} ")) {
			return s, fmt.Errorf("Action %q is not service:operation", printable(a))
		}
		s.actions = append(s.actions, strings.ToLower(a))
	}
	for _, r := range append(in.Resource, in.NotResource...) {
		if strings.Contains(r, "${") {
			return s, fmt.Errorf("Resource %q has a policy variable, which is not supported", printable(r))
		}
		if r != "*" && !strings.HasPrefix(r, "arn:") {
			return s, fmt.Errorf("Resource %q is neither an ARN nor *", printable(r))
		}
		s.resources = append(s.resources, r)
	}
	return s, nil
}

// strList is a string or a list of at least one.
type strList []string

func (l *strList) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil && string(b) != "null" {
		*l = strList{one}
		return nil
	}
	var many []*string
	if err := json.Unmarshal(b, &many); err != nil || len(many) == 0 || slices.Contains(many, nil) {
		return errors.New("must be a string or a list of strings that is not empty")
	}
	*l = nil
	for _, s := range many {
		*l = append(*l, *s)
	}
	return nil
}

// strict decodes one JSON value and refuses unknown names and anything behind it.
func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// checkNames refuses what encoding/json would let pass: a name that comes twice in an object (the last one would win),
// and a name in another case than IAM's (which it would accept).
func checkNames(document string) error {
	d := json.NewDecoder(strings.NewReader(document))
	var open []map[string]bool // names seen, by depth; nil for a list
	wantName := func() bool { return len(open) > 0 && open[len(open)-1] != nil }
	isName := false
	for {
		t, err := d.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{', '[':
				if len(open) == maxPolicyDepth {
					return fmt.Errorf("nested deeper than %d", maxPolicyDepth)
				}
				var names map[string]bool
				if v == '{' {
					names = map[string]bool{}
				}
				open = append(open, names)
			default:
				open = open[:len(open)-1]
			}
		case string:
			if isName {
				seen := open[len(open)-1]
				if seen[v] {
					return fmt.Errorf("%q comes twice", printable(v))
				}
				seen[v] = true
				if !slices.Contains(policyNames, v) {
					return fmt.Errorf("unknown or unsupported element %q", printable(v))
				}
				isName = false
				continue
			}
		}
		isName = wantName()
	}
}

var policyNames = []string{"Version", "Id", "Statement", "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource"}
