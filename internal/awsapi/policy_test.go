package awsapi

import (
	"strings"
	"testing"
)

func TestPolicyDecisions(t *testing.T) {
	const arn = "arn:aws:workspaces:us-east-1:123456789012:workspace/ws-aaaaaaaaa"
	tests := []struct {
		name, statements string
		action, resource string
		want             Decision
	}{
		{"allowed", `{"Effect":"Allow","Action":"ec2:DescribeImages","Resource":"*"}`, "ec2:DescribeImages", "*", Allowed},
		{"case of the action", `{"Effect":"Allow","Action":"EC2:describeimages","Resource":"*"}`, "ec2:DescribeImages", "*", Allowed},
		{"other action", `{"Effect":"Allow","Action":"ec2:DescribeImages","Resource":"*"}`, "ec2:ModifyImageAttribute", "*", ImplicitlyDenied},
		{"longer action", `{"Effect":"Allow","Action":"ec2:DescribeImages","Resource":"*"}`, "ec2:DescribeImagesX", "*", ImplicitlyDenied},
		{"star", `{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`, "ec2:DescribeImages", "*", Allowed},
		{"star of another service", `{"Effect":"Allow","Action":"ec2:*","Resource":"*"}`, "ec2x:DescribeImages", "*", ImplicitlyDenied},
		{"inner star", `{"Effect":"Allow","Action":"ec2:*Image*","Resource":"*"}`, "ec2:ModifyImageAttribute", "*", Allowed},
		{"question mark", `{"Effect":"Allow","Action":"s3:?etObject","Resource":"*"}`, "s3:GetObject", "*", Allowed},
		{"question mark is one", `{"Effect":"Allow","Action":"s3:?GetObject","Resource":"*"}`, "s3:GetObject", "*", ImplicitlyDenied},
		{"list", `{"Effect":"Allow","Action":["a:b","c:d"],"Resource":["*"]}`, "c:d", "*", Allowed},
		{"deny wins", `[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"c:d","Resource":"*"}]`, "c:d", "*", Denied},
		{"deny wins in any order", `[{"Effect":"Deny","Action":"c:d","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]`, "c:d", "*", Denied},
		{"deny of another", `[{"Effect":"Deny","Action":"c:d","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]`, "c:e", "*", Allowed},
		{"resource", `{"Effect":"Allow","Action":"*","Resource":"` + arn + `"}`, "workspaces:X", arn, Allowed},
		{"other resource", `{"Effect":"Allow","Action":"*","Resource":"` + arn + `"}`, "workspaces:X", arn + "b", ImplicitlyDenied},
		{"case of the resource", `{"Effect":"Allow","Action":"*","Resource":"` + arn + `"}`, "workspaces:X", strings.ToUpper(arn), ImplicitlyDenied},
		{"one resource is not all", `{"Effect":"Allow","Action":"*","Resource":"` + arn + `"}`, "workspaces:X", "*", ImplicitlyDenied},
		{"wild resource", `{"Effect":"Allow","Action":"*","Resource":"arn:aws:workspaces:*:*:workspace/ws-?????????"}`, "workspaces:X", arn, Allowed},
		{"not action", `{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`, "ec2:X", "*", Allowed},
		{"not action, excluded", `{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`, "iam:X", "*", ImplicitlyDenied},
		{"deny but for", `[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","NotAction":["ec2:*"],"Resource":"*"}]`, "iam:X", "*", Denied},
		{"not resource", `{"Effect":"Allow","Action":"*","NotResource":"` + arn + `"}`, "a:b", "*", Allowed},
		{"not resource, excluded", `{"Effect":"Allow","Action":"*","NotResource":"` + arn + `"}`, "a:b", arn, ImplicitlyDenied},
	}
	for _, tt := range tests {
		p, err := ParsePolicy(`{"Version":"2012-10-17","Id":"i","Statement":` + tt.statements + `}`)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := p.Decide(tt.action, tt.resource); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		again, err := ParsePolicy(p.String())
		if err != nil || again.Decide(tt.action, tt.resource) != tt.want {
			t.Errorf("%s: does not survive its text: %v", tt.name, err)
		}
	}
	if d := (*Policy)(nil).Decide("a:b", "*"); d != ImplicitlyDenied {
		t.Errorf("no policy: %d", d)
	}
}

func TestPolicyFailsClosed(t *testing.T) {
	const good = `"Effect":"Allow","Action":"a:b","Resource":"*"`
	if _, err := ParsePolicy(`{"Statement":{` + good + `}}`); err != nil {
		t.Fatal(err)
	}
	if p, err := ParsePolicy(`{"Statement":[]}`); err != nil || p.Decide("a:b", "*") != ImplicitlyDenied {
		t.Fatalf("no statements: %v", err)
	}
	for name, doc := range map[string]string{
		"empty":                 ``,
		"not JSON":              `{`,
		"no statement":          `{"Version":"2012-10-17"}`,
		"null statement":        `{"Statement":null}`,
		"null in the list":      `{"Statement":[null]}`,
		"two documents":         `{"Statement":{` + good + `}}{}`,
		"version":               `{"Version":"2020-01-01","Statement":{` + good + `}}`,
		"condition":             `{"Statement":{` + good + `,"Condition":{}}}`,
		"principal":             `{"Statement":{` + good + `,"Principal":"*"}}`,
		"unknown":               `{"Statement":{` + good + `,"Unless":"x"}}`,
		"unknown at the top":    `{"Statement":{` + good + `},"Other":1}`,
		"other case":            `{"statement":{` + good + `}}`,
		"effect":                `{"Statement":{"Effect":"allow","Action":"a:b","Resource":"*"}}`,
		"no effect":             `{"Statement":{"Action":"a:b","Resource":"*"}}`,
		"effect twice":          `{"Statement":{"Effect":"Deny",` + good + `}}`,
		"effect twice, escaped": `{"Statement":{"\u0045ffect":"Deny",` + good + `}}`,
		"no action":             `{"Statement":{"Effect":"Allow","Resource":"*"}}`,
		"no resource":           `{"Statement":{"Effect":"Allow","Action":"*"}}`,
		"both actions":          `{"Statement":{` + good + `,"NotAction":"c:d"}}`,
		"both resources":        `{"Statement":{` + good + `,"NotResource":"*"}}`,
		"empty actions":         `{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}`,
		"null action":           `{"Statement":{"Effect":"Allow","Action":null,"Resource":"*"}}`,
		"null among actions":    `{"Statement":{"Effect":"Allow","Action":["a:b",null],"Resource":"*"}}`,
		"action of no service":  `{"Statement":{"Effect":"Allow","Action":"Describe","Resource":"*"}}`,
		"number":                `{"Statement":{"Effect":"Allow","Action":5,"Resource":"*"}}`,
		"resource no ARN":       `{"Statement":{"Effect":"Allow","Action":"*","Resource":"bucket"}}`,
		"variable":              `{"Statement":{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::${aws:username}"}}`,
		"deep":                  strings.Repeat(`[`, 100),
		"deep objects":          strings.Repeat(`{"Statement":`, 100),
		"long":                  `{"Statement":{` + good + `}}` + strings.Repeat(" ", 7000),
		"not UTF-8":             "{\"Statement\":{\"Sid\":\"\xff\"," + good + `}}`,
	} {
		if p, err := ParsePolicy(doc); err == nil {
			t.Errorf("%s: accepted as %v", name, p)
		} else if !strings.HasPrefix(err.Error(), "policy: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"**", "abc", true}, {"?", "", false}, {"?", "é", true}, {"??", "é", false},
		{"a*b*c", "a--b--c", true}, {"a*b*c", "a--b--", false}, {"*ab", "aab", true}, {"*?b", "b", false}, {"a?c", "abc", true}, {"*.*", "a.b.c", true},
		{"[a]", "a", false}, {"é*", "éa", true}, {"*é", "xé", true},
	} {
		if got := Wildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("%q, %q: %v", tt.pattern, tt.s, got)
		}
	}
	// A hostile pattern does not take exponential time: this would not end.
	if Wildcard(strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched")
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(AdministratorAccess, "ec2:DescribeImages", "*")
	f.Add(`{"Statement":[{"Effect":"Deny","NotAction":["a:*"],"NotResource":"arn:a?*"}]}`, "a:b", "arn:ab")
	f.Add(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}}`, "", "")
	f.Fuzz(func(t *testing.T, doc, action, resource string) {
		p, err := ParsePolicy(doc)
		if err == nil && p.Decide(action, resource) == Allowed && !strings.Contains(doc, "Allow") && !strings.Contains(doc, `\u`) {
			t.Fatalf("%s allows", doc)
		}
	})
}
