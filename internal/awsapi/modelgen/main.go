// Command modelgen makes the constraint tables in awsapi/models from botocore's service models
// (github.com/boto/botocore, botocore/data/*/service-2.json, Apache-2.0). It takes facts only: the names of
// operations, shapes and members, and their limits. Shapes without a constraint, and what only outputs use, are left out.
//
// It runs by go generate in awsapi, with BOTOCORE_MODELS naming the folder that has the models; a test there regenerates
// the tables and compares.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
)

// model is the part of a botocore model that is read.
type model struct {
	Metadata struct {
		UID      string `json:"uid"`
		Protocol string `json:"protocol"`
	} `json:"metadata"`
	Operations map[string]struct {
		Input struct {
			Shape string `json:"shape"`
		} `json:"input"`
	} `json:"operations"`
	Shapes map[string]*botoShape `json:"shapes"`
}

type ref struct {
	Shape        string `json:"shape"`
	LocationName string `json:"locationName"`
	QueryName    string `json:"queryName"`
}

type botoShape struct {
	Type     string         `json:"type"`
	Members  map[string]ref `json:"members"`
	Required []string       `json:"required"`
	Member   ref            `json:"member"`
	Key      ref            `json:"key"`
	Value    ref            `json:"value"`
	Min      *float64       `json:"min"`
	Max      *float64       `json:"max"`
	Pattern  string         `json:"pattern"`
	Enum     []string       `json:"enum"`
}

// shape is written; awsapi.Model reads it.
type shape struct {
	Members  map[string]string `json:"members,omitempty"`
	Required []string          `json:"required,omitempty"`
	List     string            `json:"list,omitempty"`
	Key      string            `json:"key,omitempty"`
	Min      *int64            `json:"min,omitempty"`
	Max      *int64            `json:"max,omitempty"`
	Pattern  string            `json:"pattern,omitempty"`
	Enum     []string          `json:"enum,omitempty"`
}

type table struct {
	Source     string            `json:"source"`
	Operations map[string]string `json:"operations"`
	Shapes     map[string]*shape `json:"shapes"`
}

func main() {
	in := flag.String("in", "", "botocore service model")
	out := flag.String("out", "", "table to write")
	flag.Parse()
	if err := run(*in, *out); err != nil {
		fmt.Fprintln(os.Stderr, "modelgen:", err)
		os.Exit(1)
	}
}

func run(in, out string) error {
	b, err := os.ReadFile(in) //nolint:gosec // a developer's own argument
	if err != nil {
		return err
	}
	t, err := generate(b)
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, t, 0o644) //nolint:gosec // a source file
}

func generate(b []byte) ([]byte, error) {
	var m model
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	g := generator{in: m.Shapes, ec2: m.Metadata.Protocol == "ec2", table: table{
		Source:     "botocore service model " + m.Metadata.UID + " (Apache-2.0); names and limits only, made by modelgen",
		Operations: map[string]string{},
		Shapes:     map[string]*shape{},
	}, open: map[string]bool{}}
	for name, op := range m.Operations {
		s, err := g.shape(op.Input.Shape)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", name, err)
		}
		g.table.Operations[name] = s
	}
	text, err := json.MarshalIndent(g.table, "", "\t")
	return append(text, '\n'), err
}

type generator struct {
	in    map[string]*botoShape
	ec2   bool
	table table
	open  map[string]bool // shapes being walked: inputs that contain themselves are refused
}

// shape takes a shape over and returns its name, or "" when neither it nor anything in it has a constraint.
func (g *generator) shape(name string) (string, error) {
	if name == "" || g.table.Shapes[name] != nil {
		return name, nil
	}
	in := g.in[name]
	if in == nil {
		return "", fmt.Errorf("no shape %q", name)
	}
	if g.open[name] {
		return "", fmt.Errorf("shape %s contains itself", name)
	}
	g.open[name] = true
	defer delete(g.open, name)
	s := &shape{Pattern: in.Pattern, Enum: in.Enum, Min: whole(in.Min), Max: whole(in.Max)}
	var err error
	if in.Type == "map" {
		if s.Key, err = g.shape(in.Key.Shape); err != nil {
			return "", err
		}
		in.Member = in.Value
	}
	if s.List, err = g.shape(in.Member.Shape); err != nil {
		return "", err
	}
	for _, member := range in.Required {
		s.Required = append(s.Required, g.wireName(member, in.Members[member]))
	}
	for member, r := range in.Members {
		sub, err := g.shape(r.Shape)
		if err != nil {
			return "", fmt.Errorf("%s.%s: %w", name, member, err)
		}
		if sub != "" {
			if s.Members == nil {
				s.Members = map[string]string{}
			}
			s.Members[g.wireName(member, r)] = sub
		}
	}
	if s.Members == nil && s.Required == nil && s.List == "" && s.Key == "" && s.Min == nil && s.Max == nil && s.Pattern == "" && s.Enum == nil {
		return "", nil
	}
	g.table.Shapes[name] = s
	return name, nil
}

// wireName is what a member is called in a request. EC2's forms have a name of their own, or the XML name with a
// capital first letter.
func (g *generator) wireName(member string, r ref) string {
	switch {
	case !g.ec2:
		return member
	case r.QueryName != "":
		return r.QueryName
	case r.LocationName != "":
		return strings.ToUpper(r.LocationName[:1]) + r.LocationName[1:]
	}
	return member
}

func whole(f *float64) *int64 {
	if f == nil {
		return nil
	}
	i := int64(*f)
	return &i
}
