package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The committed tables are what the generator makes of Amazon's models today.
func TestTablesAreCurrent(t *testing.T) {
	const models = "../../../../shared/spec/models"
	if _, err := os.Stat(models); err != nil {
		t.Skip("the service models are not here")
	}
	for in, out := range map[string]string{"workspaces-2015-04-08.json": "workspaces.json", "ec2-2016-11-15-import-subset.json": "ec2.json"} {
		made := filepath.Join(t.TempDir(), out)
		if err := run(filepath.Join(models, in), made); err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(made)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", "models", out))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("models/%s is not what modelgen makes; run go generate in awsapi", out)
		}
	}
}

func TestGenerate(t *testing.T) {
	got, err := generate([]byte(`{"metadata":{"uid":"u"},"operations":{"A":{"input":{"shape":"In"}},"B":{}},
		"shapes":{"In":{"type":"structure","documentation":"words","required":["x"],"members":{"x":{"shape":"S"},"free":{"shape":"Free"},"l":{"shape":"L"},"m":{"shape":"M"}}},
		"S":{"type":"string","min":1,"max":5,"pattern":"a+"},"Free":{"type":"string"},"L":{"type":"list","member":{"shape":"S"}},"M":{"type":"map","key":{"shape":"Free"},"value":{"shape":"S"}},"Out":{"type":"string","max":1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"source":"botocoreservicemodelu(Apache-2.0);namesandlimitsonly,madebymodelgen","operations":{"A":"In","B":""},"shapes":{"In":{"members":{"l":"L","m":"M","x":"S"},"required":["x"]},"L":{"list":"S"},"M":{"list":"S"},"S":{"min":1,"max":5,"pattern":"a+"}}}`
	if text := strings.Join(strings.Fields(string(got)), ""); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	got, err = generate([]byte(`{"metadata":{"protocol":"ec2"},"operations":{"A":{"input":{"shape":"In"}}},
		"shapes":{"In":{"type":"structure","required":["xs","Plain"],"members":{"xs":{"shape":"S","locationName":"imageId"},"ys":{"shape":"S","locationName":"y","queryName":"Why"},"Plain":{"shape":"S"}}},"S":{"type":"string","max":1}}}`))
	if err != nil || !strings.Contains(strings.Join(strings.Fields(string(got)), ""), `"In":{"members":{"ImageId":"S","Plain":"S","Why":"S"},"required":["ImageId","Plain"]}`) {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{`{`, `{"operations":{"A":{"input":{"shape":"X"}}}}`,
		`{"operations":{"A":{"input":{"shape":"X"}}},"shapes":{"X":{"type":"structure","members":{"x":{"shape":"X"}}}}}`} {
		if _, err := generate([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}
